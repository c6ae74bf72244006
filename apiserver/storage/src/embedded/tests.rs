use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::suite::{self, Subject, create, key};

mod crash;
mod damage;
mod failing_disk;

/// A store on disk, in a directory of its own.
struct OnDisk {
    directory: tempfile::TempDir,
}

impl OnDisk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.redb")
    }

    fn open_with(&self, options: Options) -> Result<Embedded, Error> {
        Embedded::open(&self.path(), options)
    }
}

#[async_trait]
impl Subject for OnDisk {
    async fn open(&self, history: HistoryLimits) -> Arc<dyn Store> {
        Arc::new(self.open_with(Options { history, ..Options::default() }).unwrap())
    }
}

/// A store in memory. What is opened again is empty, so the test of that is not its own.
struct InMemory;

#[async_trait]
impl Subject for InMemory {
    async fn open(&self, history: HistoryLimits) -> Arc<dyn Store> {
        Arc::new(Embedded::in_memory(Options { history, ..Options::default() }).unwrap())
    }
}

mod on_disk {
    use super::*;

    suite::conformance!(OnDisk::new());
}

mod in_memory {
    use super::*;

    suite::conformance!(@tests InMemory;
        a_key_is_created_updated_and_deleted,
        a_write_that_is_not_as_expected_changes_nothing,
        a_range_is_ordered_and_bounded_by_its_prefix,
        concurrent_writers_get_one_revision_each_and_watchers_see_all_in_order,
        of_many_writers_that_expect_the_same_exactly_one_wins,
        a_watch_from_every_revision_gets_what_follows_once,
        pages_at_one_revision_are_not_disturbed_by_writes,
        compacted_history_is_refused_and_the_rest_stays,
        a_watcher_that_does_not_read_holds_nobody_up,
        a_closed_store_says_so,
    );
}

#[tokio::test]
async fn the_empty_store_is_at_revision_one_and_has_no_gaps() {
    let subject = OnDisk::new();
    let store = subject.open_with(Options::default()).unwrap();
    assert_eq!(store.revision().await.unwrap(), 1);
    for n in 2..20 {
        assert_eq!(create(&store, &format!("key-{n}"), "x").await, n);
    }
}

#[tokio::test]
async fn a_second_owner_is_refused_with_the_path() {
    let subject = OnDisk::new();
    let first = subject.open_with(Options::default()).unwrap();
    let second = subject.open_with(Options::default()).err().unwrap();
    assert!(matches!(&second, Error::InUse { path } if *path == subject.path()), "{second:?}");
    assert!(second.to_string().contains(subject.path().to_str().unwrap()));
    create(&first, "a", "x").await;
    first.close().await;
    let third = subject.open_with(Options::default()).unwrap();
    assert!(third.get(&key("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn the_file_is_for_its_owner_only_and_nothing_half_made_stays() {
    let subject = OnDisk::new();
    let store = subject.open_with(Options::default()).unwrap();
    let mode = std::fs::metadata(subject.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds Secrets");
    let names: Vec<_> = std::fs::read_dir(subject.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["store.redb"]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwriting_one_key_does_not_make_the_file_grow() {
    let subject = OnDisk::new();
    let store = Arc::new(subject.open_with(Options::default()).unwrap());
    let value = "x".repeat(600);
    let overwrite = async |times: usize| {
        let current = store.get(&key("lease")).await.unwrap();
        let mut expected = current.map_or(Expected::Absent, |current| Expected::At(current.mod_revision));
        for _ in 0..times {
            expected =
                Expected::At(suite::committed(suite::put(&*store, &key("lease"), expected, &value).await));
        }
    };
    overwrite(200).await;
    let early = std::fs::metadata(subject.path()).unwrap().len();
    overwrite(1_000).await;
    let late = std::fs::metadata(subject.path()).unwrap().len();
    assert!(late <= early * 2, "{early} bytes grew to {late}");
}

#[tokio::test]
async fn a_dropped_store_leaves_the_file_to_the_next() {
    let subject = OnDisk::new();
    for n in 0..5 {
        let store = subject.open_with(Options::default()).unwrap();
        create(&store, &format!("key-{n}"), "x").await;
    }
    let store = subject.open_with(Options::default()).unwrap();
    assert_eq!(store.revision().await.unwrap(), 6);
}

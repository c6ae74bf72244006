//! SIGKILL at any moment: what was acknowledged is there, and revisions never go back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::{KeyValue, Range};

const WRITER_FILE: &str = "WHERRY_STORAGE_TEST_WRITER_FILE";
const KILLS: usize = 20;

/// Not a test of its own: the process that is killed. It writes as fast as it can from several tasks and prints each answer
/// before its next write.
#[test]
fn the_writer_that_is_killed() {
    let Some(path) = std::env::var_os(WRITER_FILE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Embedded::open(path.as_ref(), Options::default()).unwrap());
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let name = format!("writer-{writer}");
                for _ in 0..1_000_000 {
                    let current = store.get(&key(&name)).await.unwrap();
                    let (expected, next) = match &current {
                        Some(KeyValue { value, mod_revision, .. }) => {
                            let text = String::from_utf8_lossy(value);
                            let n: u64 = text.split(' ').next().unwrap().parse().unwrap();
                            (Expected::At(*mod_revision), n + 1)
                        }
                        None => (Expected::Absent, 1),
                    };
                    // Values of several pages, too.
                    let padding = "x".repeat(usize::try_from(next * 37 % 9000).unwrap());
                    let value = format!("{next} {padding}");
                    let revision = suite::committed(suite::put(&*store, &key(&name), expected, &value).await);
                    let line = format!("acknowledged {name} {next} {revision}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        writers.join_all().await;
    });
}

#[tokio::test]
async fn every_acknowledged_write_survives_sigkill_and_revisions_never_go_back() {
    let subject = OnDisk::new();
    let mut acknowledged: BTreeMap<String, (u64, Revision)> = BTreeMap::new();
    let mut highest = 0;
    for kill in 0..KILLS {
        // Not run in a shell of the harness: its own arguments name the one test.
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::tests::crash::the_writer_that_is_killed", "--nocapture"])
            .env(WRITER_FILE, subject.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.by_ref().find(|line| line.as_ref().unwrap().contains("acknowledged"));
        assert!(first.is_some(), "the writer writes");
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5 + 13 * u64::try_from(kill).unwrap() % 60));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in first.into_iter().chain(lines).map_while(Result::ok) {
            // The last line may be torn; the harness writes on the same stream before the first.
            let Some((_, line)) = line.split_once("acknowledged ") else { continue };
            let parts: Vec<_> = line.split(' ').collect();
            let [name, n, revision] = parts[..] else { continue };
            let (Ok(n), Ok(revision)) = (n.parse(), revision.parse::<Revision>()) else { continue };
            // A torn number is a smaller one, which later checks allow.
            let last = acknowledged.entry(name.to_owned()).or_default();
            *last = (*last).max((n, revision));
            highest = highest.max(revision);
        }
        killer.join().unwrap();

        let store = subject.open_with(Options::default()).unwrap();
        let now = store.revision().await.unwrap();
        assert!(now >= highest, "kill {kill}: at revision {now}, {highest} was acknowledged");
        let range = Range { prefix: Prefix::all(), after: None, limit: 0, revision: None };
        let mut revisions = Vec::new();
        let mut found = BTreeMap::new();
        for item in store.range(range).await.unwrap().items {
            let text = String::from_utf8(item.value.into()).unwrap();
            let (n, padding) = text.split_once(' ').unwrap();
            let n: u64 = n.parse().unwrap();
            assert_eq!(padding.len() as u64, n * 37 % 9000, "the value is whole");
            revisions.push(item.mod_revision);
            found.insert(item.key.as_str().rsplit('/').next().unwrap().to_owned(), n);
        }
        for (name, (n, _)) in &acknowledged {
            let kept = found.get(name).copied().unwrap_or(0);
            assert!(kept >= *n, "kill {kill}: {name} is at {kept}, {n} was acknowledged");
            assert!(kept <= n + 1, "kill {kill}: {name} is at {kept}, only {n} and one more were written");
        }
        // What was committed and could not be told any more counts as told from now on.
        for (name, n) in found {
            let last = acknowledged.entry(name).or_default();
            last.0 = last.0.max(n);
        }
        revisions.sort_unstable();
        assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "no revision twice");
        let next = create(&store, &format!("after-{kill}"), "0 ").await;
        assert_eq!(next, now + 1);
        highest = next;
        store.close().await;
    }
    assert!(acknowledged.values().map(|(n, _)| n).sum::<u64>() > 100, "{acknowledged:?}");
}

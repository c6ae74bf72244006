//! A disk that fails and recovers: errors are told, nothing of a failed batch is seen, and writing goes on afterwards.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use redb::{Builder, StorageBackend};

use super::*;
use crate::WatchItem;

/// Bytes that outlive the database that is open on them, with switches to fail.
#[derive(Debug, Default)]
struct Disk {
    bytes: Mutex<Vec<u8>>,
    writes_fail: AtomicBool,
    syncs_fail: AtomicBool,
    growth_fails: AtomicBool,
}

#[derive(Debug, Clone)]
struct Handle(Arc<Disk>);

fn failing(switch: &AtomicBool) -> io::Result<()> {
    if switch.load(Ordering::SeqCst) { Err(io::Error::other("no space left on device")) } else { Ok(()) }
}

fn span(bytes: &[u8], offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.checked_add(len).filter(|end| *end <= bytes.len());
    Ok(start..end.ok_or(io::ErrorKind::UnexpectedEof)?)
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.bytes.lock().unwrap();
        out.copy_from_slice(&bytes[span(&bytes, offset, out.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        failing(&self.0.growth_fails)?;
        self.0.bytes.lock().unwrap().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        failing(&self.0.syncs_fail)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        failing(&self.0.writes_fail)?;
        let mut bytes = self.0.bytes.lock().unwrap();
        let span = span(&bytes, offset, data.len())?;
        bytes[span].copy_from_slice(data);
        Ok(())
    }
}

fn store_on(disk: &Arc<Disk>) -> Result<Embedded, Error> {
    let handle = Handle(Arc::clone(disk));
    let opener = Box::new(move || {
        let fresh = handle.0.bytes.lock().unwrap().is_empty();
        let mut database = Builder::new()
            .create_with_backend(handle.clone())
            .map_err(|error| Error::disk("opening it", error))?;
        if fresh {
            file::initialise(&database)?;
        }
        database.check_integrity().map_err(|error| Error::disk("opening it", error))?;
        Ok(database)
    });
    Embedded::start(File::with_opener(opener)?, Options::default())
}

async fn try_create(store: &Embedded, name: &str) -> Result<Outcome, Error> {
    store.transact(&key(name), Expected::Absent, Change::Put("x".into())).await
}

async fn fails_and_recovers(switch: fn(&Disk) -> &AtomicBool, value: usize) {
    let disk = Arc::new(Disk::default());
    let store = store_on(&disk).unwrap();
    let before = create(&store, "before", "x").await;
    let mut watch = store.watch(&suite::prefix(), before).await.unwrap();

    switch(&disk).store(true, Ordering::SeqCst);
    for n in 0..3 {
        let change = Change::Put(vec![0; value].into());
        let failed = store.transact(&key(&format!("failed-{n}")), Expected::Absent, change).await;
        assert!(matches!(failed, Err(Error::Disk { .. })), "{failed:?}");
        assert_eq!(store.revision().await.unwrap(), before, "nothing of it is visible");
        assert_eq!(store.get(&key(&format!("failed-{n}"))).await.unwrap(), None);
    }
    assert!(store.get(&key("before")).await.unwrap().is_some(), "reading goes on");
    switch(&disk).store(false, Ordering::SeqCst);

    let after = suite::committed(try_create(&store, "after").await.expect("writing goes on"));
    assert!(after > before);
    let events = suite::events_until(&mut watch, after).await;
    assert_eq!(events.last().unwrap().key, key("after"));
    let seen: Vec<_> = events.iter().map(|event| event.revision).collect();
    assert!(seen.iter().copied().eq(before + 1..=after), "no gap: {seen:?}");

    // What was seen is what is there for the next owner.
    let items = |store: Arc<Embedded>| async move {
        let range = crate::Range { prefix: Prefix::all(), after: None, limit: 0, revision: None };
        store.range(range).await.unwrap().items
    };
    let store = Arc::new(store);
    let present = items(Arc::clone(&store)).await;
    store.close().await;
    let again = Arc::new(store_on(&disk).unwrap());
    assert_eq!(items(Arc::clone(&again)).await, present);
    assert_eq!(again.revision().await.unwrap(), after);
}

#[tokio::test]
async fn a_failed_write_is_told_and_not_seen_and_the_store_recovers() {
    fails_and_recovers(|disk| &disk.writes_fail, 10).await;
}

#[tokio::test]
async fn a_failed_sync_is_told_and_not_seen_and_the_store_recovers() {
    fails_and_recovers(|disk| &disk.syncs_fail, 10).await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_not_seen_and_the_store_recovers() {
    fails_and_recovers(|disk| &disk.growth_fails, 1 << 20).await;
}

#[tokio::test]
async fn watchers_of_a_store_with_a_failed_disk_see_no_failed_write() {
    let disk = Arc::new(Disk::default());
    let store = store_on(&disk).unwrap();
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(&suite::prefix(), start).await.unwrap();
    disk.writes_fail.store(true, Ordering::SeqCst);
    assert!(try_create(&store, "failed").await.is_err());
    let silence = tokio::time::timeout(std::time::Duration::from_millis(100), watch.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    store.close().await;
    let last = watch.next().await;
    assert!(!matches!(last, Some(Ok(WatchItem::Events(_)))), "{last:?}");
}

//! A file that is not what was written: it opens with everything, or it does not open.

use std::fs;

use super::*;
use crate::{KeyValue, Range};

/// A file with small and large values, some of them overwritten and deleted, and what a reader must find in it.
async fn written(subject: &OnDisk) -> (Vec<u8>, Vec<KeyValue>) {
    let store = subject.open_with(Options::default()).unwrap();
    for n in 0..60 {
        let name = format!("key-{n:02}");
        let at = create(&store, &name, &"x".repeat(n * 150)).await;
        if n % 4 == 0 {
            store.transact(&key(&name), Expected::At(at), Change::Delete).await.unwrap();
        }
    }
    let items = everything(&store).await;
    store.close().await;
    (fs::read(subject.path()).unwrap(), items)
}

async fn everything(store: &Embedded) -> Vec<KeyValue> {
    let range = Range { prefix: Prefix::all(), after: None, limit: 0, revision: None };
    store.range(range).await.unwrap().items
}

/// Whether it opens. If it does, then with all the data.
async fn check(subject: &OnDisk, content: &[u8], items: &[KeyValue], told: &str) -> bool {
    fs::write(subject.path(), content).unwrap();
    match subject.open_with(Options::default()) {
        Ok(store) => {
            assert_eq!(everything(&store).await, items, "{told}");
            store.close().await;
            true
        }
        Err(error) => {
            assert!(matches!(error, Error::Disk { .. }), "{told}: {error:?}");
            false
        }
    }
}

#[tokio::test]
async fn a_truncated_file_has_all_or_is_refused() {
    let subject = OnDisk::new();
    let (content, items) = written(&subject).await;
    assert!(check(&subject, &content, &items, "whole").await);
    // Every byte of the header, every page boundary and its neighbours.
    let header = (0..520).step_by(8).chain(520..4096_usize).step_by(61);
    let pages = (4096..content.len()).step_by(4096).flat_map(|at| [at - 1, at, at + 1]);
    let positions: Vec<_> = header.chain(pages).filter(|at| *at < content.len()).collect();
    assert!(positions.len() > 100, "{}", content.len());
    // The file of a store that only just began is some hundred pages; a bounded part of the positions is enough.
    for at in positions.iter().step_by(positions.len() / 150 + 1) {
        check(&subject, &content[..*at], &items, &format!("cut at {at} of {}", content.len())).await;
    }
}

#[tokio::test]
async fn a_damaged_page_is_found_when_the_store_is_opened() {
    let subject = OnDisk::new();
    let (content, items) = written(&subject).await;
    let mut refused = 0;
    let positions: Vec<_> = (0..content.len()).step_by(4096).collect();
    for at in positions.iter().step_by(positions.len() / 100 + 1) {
        let mut damaged = content.clone();
        for byte in &mut damaged[at + 100..at + 108] {
            *byte ^= 0x5a;
        }
        if !check(&subject, &damaged, &items, &format!("damaged at {at}")).await {
            refused += 1;
        }
    }
    assert!(refused > 0, "pages in use were among those damaged");
}

#[tokio::test]
async fn another_programs_file_is_refused_and_left_alone() {
    let subject = OnDisk::new();
    let content = b"this is not a store".repeat(1000);
    fs::write(subject.path(), &content).unwrap();
    let error = subject.open_with(Options::default()).err().unwrap();
    assert!(matches!(error, Error::Disk { .. }), "{error:?}");
    assert_eq!(fs::read(subject.path()).unwrap(), content);
}

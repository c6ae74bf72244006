//! Durable writes per second, embedded beside etcd on the same disk in the same run; the file's size after many overwrites;
//! the time to open a store with many objects. Prints figures and asserts none.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and ends at the first failure"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use wherry_storage::{Change, Embedded, Etcd, Expected, Key, Outcome, Revision, Store, embedded, etcd};

#[path = "../src/etcd/tests/process.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod process;

/// About a Pod without its managed fields.
const VALUE_BYTES: usize = 1024;
const ROUND: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 4;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        writes().await;
        overwrites().await;
        restart().await;
    });
}

async fn writes() {
    println!("durable writes of {VALUE_BYTES} bytes, each to a key of the client's own:");
    for clients in [1, 16, 64, 256] {
        let directory = tempfile::tempdir().unwrap();
        let embedded = open(&directory.path().join("store.redb"));
        let server = process::EtcdProcess::start();
        let etcd = Etcd::connect(&[server.endpoint()], None, etcd::Options::default()).await.unwrap();
        let etcd = Arc::new(etcd);
        // By turns, since the disk's pace changes with what else the machine does.
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            ours.extend(round_of_writes(embedded.clone(), clients, round).await);
            theirs.extend(round_of_writes(etcd.clone(), clients, round).await);
        }
        let (ours, theirs) = (Measured::new(ours), Measured::new(theirs));
        println!(
            "  {clients:>3} clients: embedded {ours}; etcd {theirs}; ratio {:.1}",
            ours.per_second / theirs.per_second
        );
    }
}

struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}/s (p50 {:.1?}, p99 {:.1?})", self.per_second, self.p50, self.p99)
    }
}

impl Measured {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            per_second: times.len() as f64 / (ROUND * ROUNDS).as_secs_f64(),
            p50: times[times.len() / 2],
            p99: times[times.len() * 99 / 100],
        }
    }
}

/// How long each write took.
async fn round_of_writes(store: Arc<dyn Store>, clients: usize, round: u32) -> Vec<Duration> {
    let until = Instant::now() + ROUND;
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let key = key(&format!("client-{client}-{round}"));
            let mut at = None;
            let mut times = Vec::new();
            while Instant::now() < until {
                let sent = Instant::now();
                at = Some(put(&*store, &key, at).await);
                times.push(sent.elapsed());
            }
            times
        });
    }
    tasks.join_all().await.concat()
}

async fn overwrites() {
    const TIMES: usize = 100_000;
    const WRITERS: usize = 64;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    println!("{TIMES} overwrites of {WRITERS} keys of {VALUE_BYTES} bytes: the file's size");
    println!("  before: {}", size(&path));
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let key = key(&format!("lease-{writer}"));
            let mut at = None;
            for _ in 0..TIMES / WRITERS {
                at = Some(put(&*store, &key, at).await);
            }
        });
    }
    tasks.join_all().await;
    println!("  after: {}", size(&path));
}

async fn restart() {
    const OBJECTS: usize = 100_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let mut tasks = JoinSet::new();
    for part in 0..200 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for n in 0..OBJECTS / 200 {
                put(&*store, &key(&format!("object-{part}-{n}")), None).await;
            }
        });
    }
    tasks.join_all().await;
    // As after SIGKILL: the file as it is, without a closing.
    let killed = directory.path().join("killed.redb");
    std::fs::copy(&path, &killed).unwrap();
    store.close().await;
    drop(store);
    println!("to open a store of {OBJECTS} objects ({}):", size(&path));
    for (told, path) in [("closed", &path), ("killed", &killed)] {
        let before = resident_bytes();
        let began = Instant::now();
        let store = open(path);
        println!(
            "  {told}: {:.0?}, {} MiB more resident",
            began.elapsed(),
            (resident_bytes() - before) >> 20
        );
        store.close().await;
    }
}

fn open(path: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::open(path, embedded::Options::default()).unwrap())
}

fn key(name: &str) -> Key {
    Key::new("", "pods", Some("default"), name).unwrap()
}

async fn put(store: &dyn Store, key: &Key, at: Option<Revision>) -> Revision {
    let expected = at.map_or(Expected::Absent, Expected::At);
    let change = Change::Put(Bytes::from(vec![b'x'; VALUE_BYTES]));
    match store.transact(key, expected, change).await.unwrap() {
        Outcome::Committed { revision } => revision,
        Outcome::Conflict { current } => panic!("conflict with {current:?}"),
    }
}

fn size(path: &Path) -> String {
    format!("{:.1} MiB", std::fs::metadata(path).unwrap().len() as f64 / f64::from(1 << 20))
}

fn resident_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

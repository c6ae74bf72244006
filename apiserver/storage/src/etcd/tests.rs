use super::*;
use crate::suite::{self, Subject, committed, create, events_until, key, prefix, within_a_minute};

mod process;

use process::EtcdProcess;

/// etcd in a process of its own; what is opened again is another client of it.
struct OwnEtcd(EtcdProcess);

impl OwnEtcd {
    fn new() -> Self {
        Self(EtcdProcess::start())
    }

    async fn connect(&self, options: Options) -> Etcd {
        Etcd::connect(&[self.0.endpoint()], None, options).await.unwrap()
    }
}

#[async_trait]
impl Subject for OwnEtcd {
    async fn open(&self, history: HistoryLimits) -> Arc<dyn Store> {
        Arc::new(self.connect(Options { history, ..Options::default() }).await)
    }
}

suite::conformance!(OwnEtcd::new());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_see_each_others_writes_in_one_order() {
    let subject = OwnEtcd::new();
    let stores = [subject.connect(Options::default()).await, subject.connect(Options::default()).await];
    let start = stores[0].revision().await.unwrap();
    let mut watches =
        [stores[0].watch(&prefix(), start).await.unwrap(), stores[1].watch(&prefix(), start).await.unwrap()];
    let mut last = start;
    for n in 0..40 {
        last = create(&stores[n % 2], &format!("key-{n:02}"), "x").await;
        assert!(stores[(n + 1) % 2].get(&key(&format!("key-{n:02}"))).await.unwrap().is_some());
    }
    let first = events_until(&mut watches[0], last).await;
    assert_eq!(first.len(), 40);
    assert_eq!(first, events_until(&mut watches[1], last).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_go_on_after_etcd_was_killed_and_started_again() {
    within_a_minute(async {
        let mut subject = OwnEtcd::new();
        let options = Options { request_timeout: Duration::from_secs(2), ..Options::default() };
        let store = subject.connect(options).await;
        let start = store.revision().await.unwrap();
        let mut watch = store.watch(&prefix(), start).await.unwrap();
        let before = create(&store, "before", "x").await;
        events_until(&mut watch, before).await;

        subject.0.kill();
        let change = Change::Put("x".into());
        let failed = store.transact(&key("while-down"), Expected::Absent, change).await;
        assert!(matches!(failed, Err(Error::Etcd { .. })), "{failed:?}");
        subject.0.start_again();

        let after = loop {
            match store.transact(&key("after"), Expected::Absent, Change::Put("x".into())).await {
                Ok(Outcome::Committed { revision }) => break revision,
                Ok(Outcome::Conflict { current }) => break current.unwrap().mod_revision,
                Err(error) => {
                    assert!(matches!(error, Error::Etcd { .. }), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let events = events_until(&mut watch, after).await;
        let names: Vec<_> = events.iter().map(|event| event.key.clone()).collect();
        assert!(names == [key("after")] || names == [key("while-down"), key("after")], "{names:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_was_lost_during_a_break_is_told_to_watchers() {
    within_a_minute(async {
        let mut subject = OwnEtcd::new();
        let options = Options { request_timeout: Duration::from_secs(2), ..Options::default() };
        let store = subject.connect(options).await;
        let start = create(&store, "a", "x").await;
        let mut watch = store.watch(&prefix(), start).await.unwrap();
        assert_eq!(store.view.read().revision(), start);
        // The first server hears nothing of what the second does meanwhile, and etcd forgets it.
        store.stop.cancel();
        let mut tasks = std::mem::take(&mut *store.tasks.lock().unwrap());
        while tasks.join_next().await.is_some() {}
        let second = subject.connect(options).await;
        let made = create(&second, "made", "x").await;
        let gone = second.transact(&key("made"), Expected::At(made), Change::Delete).await.unwrap();
        second.compact(committed(gone)).await.unwrap();
        subject.0.kill();
        subject.0.start_again();
        let feed = Feed::new(store.connection.clone(), Arc::clone(&store.view), options);
        let feed = tokio::spawn(feed.run());
        let told = loop {
            match futures::StreamExt::next(&mut watch).await.unwrap() {
                Ok(crate::WatchItem::Progress(_)) => {}
                told => break told,
            }
        };
        assert!(matches!(told, Err(Error::Compacted { .. })), "{told:?}");
        let now = second.revision().await.unwrap();
        let mut anew = store.watch(&prefix(), now).await.unwrap();
        let next = create(&second, "next", "x").await;
        assert_eq!(events_until(&mut anew, next).await.len(), 1);
        feed.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_differs_from_etcds_is_read_anew() {
    within_a_minute(async {
        let subject = OwnEtcd::new();
        let interval = Duration::from_millis(200);
        let store = subject.connect(Options { compaction_interval: interval, ..Options::default() }).await;
        let at = create(&store, "a", "x").await;
        // As if the watch had lost a deletion of a key that in truth never was.
        let lost =
            crate::Event { revision: at + 1, key: key("ghost"), value: Some("x".into()), previous: None };
        while store.view.read().revision() < at {
            tokio::task::yield_now().await;
        }
        store.view.publish(vec![lost], at + 1, std::time::Instant::now());
        let mut deceived = store.watch(&prefix(), at + 1).await.unwrap();
        while store.view.read().get(&key("ghost")).is_some() {
            tokio::time::sleep(interval).await;
        }
        let told = futures::StreamExt::next(&mut deceived).await.unwrap();
        assert!(matches!(told, Err(Error::Compacted { .. })), "{told:?}");
        let mut watch = store.watch(&prefix(), store.revision().await.unwrap()).await.unwrap();
        let last = create(&store, "last", "x").await;
        assert_eq!(events_until(&mut watch, last).await.last().unwrap().key, key("last"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_history_is_compacted_in_etcd_by_one_of_the_servers() {
    within_a_minute(async {
        let subject = OwnEtcd::new();
        let options = Options { compaction_interval: Duration::from_millis(200), ..Options::default() };
        let stores = [subject.connect(options).await, subject.connect(options).await];
        let old = create(&stores[0], "a", "1").await;
        let mut at = old;
        let reader = Connection::new(&[subject.0.endpoint()], None, Duration::from_secs(5)).await.unwrap();
        let range = Range { prefix: prefix(), after: None, limit: 0, revision: Some(old) };
        loop {
            at = committed(suite::put(&stores[0], &key("a"), Expected::At(at), "2").await);
            match reader.range(&range).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(Error::Compacted { .. }) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(stores[1].get(&key("a")).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_behind_tls_wants_our_certificate_and_we_want_its() {
    let tls = process::Tls::new();
    let etcd = EtcdProcess::start_with_tls(&tls);
    let connect = async |options: TlsOptions| {
        let timeout = Options { request_timeout: Duration::from_secs(3), ..Options::default() };
        Etcd::connect(&[etcd.endpoint()], Some(options), timeout).await
    };
    let good = TlsOptions {
        ca_pem: Some(tls.ca_pem.clone().into_bytes()),
        identity_pem: Some((tls.client_pem.clone().into_bytes(), tls.client_key_pem.clone().into_bytes())),
        server_name: None,
    };
    let store = connect(good.clone()).await.unwrap();
    create(&store, "a", "x").await;
    let no_certificate = connect(TlsOptions { identity_pem: None, ..good.clone() }).await;
    assert!(matches!(no_certificate, Err(Error::Etcd { .. })), "{no_certificate:?}");
    let other = process::Tls::new();
    let other_ca = connect(TlsOptions { ca_pem: Some(other.ca_pem.into_bytes()), ..good }).await;
    assert!(matches!(other_ca, Err(Error::Etcd { .. })), "{other_ca:?}");
}

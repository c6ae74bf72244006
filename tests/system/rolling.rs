//! A rolling update under constant load: not one request fails.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use crate::support::{Keepalive, TestCluster, try_get};

/// Clients that ask without a pause, and what they saw.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(service: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..4)
            .map(|number| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                std::thread::spawn(move || {
                    if number % 2 == 0 {
                        ask_on_new_connections(service, &stop, &answered)
                    } else {
                        ask_on_kept_connections(service, &stop, &answered)
                    }
                })
            })
            .collect();
        Self { stop, answered, clients }
    }

    /// How many were answered; none may have failed.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let failures: Vec<String> =
            self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let answered = self.answered.load(Ordering::SeqCst);
        assert!(
            failures.is_empty(),
            "{} of {answered} requests failed: {:?}",
            failures.len(),
            &failures[..failures.len().min(10)]
        );
        answered
    }
}

fn ask_on_new_connections(service: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match try_get(service, "/new") {
            Ok((200, _)) => drop(answered.fetch_add(1, Ordering::SeqCst)),
            Ok((status, body)) => failures.push(format!("new connection: {status} {body}")),
            Err(error) => failures.push(format!("new connection: {error}")),
        }
    }
    failures
}

fn ask_on_kept_connections(service: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let mut connection = match Keepalive::connect(service) {
            Ok(connection) => connection,
            Err(error) => {
                failures.push(format!("kept connection: connect: {error}"));
                continue;
            }
        };
        while !stop.load(Ordering::SeqCst) {
            match connection.get("/kept") {
                Ok((200, _, closes)) => {
                    answered.fetch_add(1, Ordering::SeqCst);
                    if closes {
                        break;
                    }
                }
                Ok((status, body, _)) => failures.push(format!("kept connection: {status} {body}")),
                Err(error) => {
                    failures.push(format!("kept connection: {error}"));
                    break;
                }
            }
        }
    }
    failures
}

#[test]
fn no_request_fails_while_a_deployment_is_updated_scaled_and_rolled_back() {
    let cluster = TestCluster::start();
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let load = Load::start(cluster.service("hello-http"));

    let before = cluster.ok(&["get", "pods", "-o", "name"]);
    cluster.ok(&["set", "env", "deployment/hello-http", "GREETING=Good day"]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=90s"]);
    let after = cluster.ok(&["get", "pods", "-o", "name", "--field-selector=status.phase=Running"]);
    assert!(before.lines().all(|pod| !after.contains(pod)), "{before}\n{after}");

    cluster.ok(&["scale", "deployment/hello-http", "--replicas=6"]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    cluster.ok(&["scale", "deployment/hello-http", "--replicas=2"]);
    cluster.ok(&["rollout", "undo", "deployment/hello-http"]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=90s"]);

    let answered = load.finish();
    assert!(answered > 100, "only {answered} requests were made");
}

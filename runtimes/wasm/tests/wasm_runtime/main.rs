//! The WebAssembly runtime, seen through the runtime interface: the suite, and what only guests do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod commands;
mod fixture;
mod http;
mod images;
mod restart;
mod streams;

use std::sync::Arc;

use fixture::Fixture;
use tokio_util::sync::CancellationToken;
use wherry_runtime_cri::Client;
use wherry_runtimes::suite::{self, Subject};
use wherry_runtimes::{Runtime, RuntimeService};

const IMAGES: [&str; 3] = ["guest:prints", "guest:fails", "guest:sleeps"];

fn subject(runtime: Arc<dyn Runtime>, fixture: &Fixture, pod_cidr: &str) -> Subject {
    Subject::new(runtime, "wasmtime", IMAGES, pod_cidr, fixture.logs())
}

#[tokio::test]
async fn the_runtime_passes_the_suite_in_process() {
    let fixture = Fixture::start("127.70.1.0/24").await;
    suite::run_all(&subject(Arc::new(fixture.runtime.clone()), &fixture, "127.70.1.0/24")).await;
}

#[tokio::test]
async fn the_runtime_passes_the_suite_over_its_socket() {
    let fixture = Fixture::start("127.70.2.0/24").await;
    let socket = fixture.dir.path().join("cri.sock");
    let shutdown = CancellationToken::new();
    let runtime = Arc::new(fixture.runtime.clone());
    let (path, stop) = (socket.clone(), shutdown.clone());
    let server = tokio::spawn(async move { wherry_runtime_cri::serve(runtime, &path, stop).await });
    let client = Client::connect(&format!("unix://{}", socket.display())).unwrap();
    fixture::eventually("the socket answers", || async { client.version().await.is_ok() }).await;
    suite::run_all(&subject(Arc::new(client.clone()), &fixture, "127.70.2.0/24")).await;
    shutdown.cancel();
    server.await.unwrap().unwrap();
    assert!(!socket.exists());
    assert!(client.version().await.is_err());
}

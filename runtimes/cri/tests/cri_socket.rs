//! Any runtime behind a socket is the same runtime.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wherry_runtime_cri::{Client, Error, serve};
use wherry_runtimes::fake::{Behaviour, Exit, FakeRuntime};
use wherry_runtimes::log::Stream;
use wherry_runtimes::suite::{self, Subject};
use wherry_runtimes::{
    AttachRequest, ExecRequest, PodSandboxConfig, PodSandboxMetadata, PortForwardRequest, RuntimeService,
};

struct Served {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

fn spawn(fake: &FakeRuntime, socket: &Path) -> Served {
    let shutdown = CancellationToken::new();
    let (runtime, path, stop) = (Arc::new(fake.clone()), socket.to_owned(), shutdown.clone());
    Served { shutdown, task: tokio::spawn(async move { serve(runtime, &path, stop).await }) }
}

async fn answering(client: &Client) {
    for _ in 0..2000 {
        if client.version().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the socket never answered");
}

#[tokio::test]
async fn the_fake_passes_the_suite_over_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let fake = FakeRuntime::default();
    let output = vec![(Stream::Stdout, "hello\n".to_owned()), (Stream::Stderr, "oops\n".to_owned())];
    let at_once = |code| Some((Duration::ZERO, Exit::code(code)));
    fake.script("prints", Behaviour { output, exit: at_once(0), ..Default::default() });
    fake.script("fails", Behaviour { exit: at_once(3), ..Default::default() });
    let images = ["prints", "fails", "sleeps"];
    images.iter().for_each(|image| fake.add_image(image));
    let served = spawn(&fake, &socket);
    let client = Client::connect(&format!("unix://{}", socket.display())).unwrap();
    answering(&client).await;
    let subject = Subject::new(Arc::new(client), "runc", images, "10.77.0.0/24", dir.path().join("logs"));
    suite::run_all(&subject).await;
    served.shutdown.cancel();
    served.task.await.unwrap().unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_client_finds_a_server_that_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let client = Client::connect(socket.to_str().unwrap()).unwrap();
    let nobody = client.version().await;
    assert!(matches!(nobody, Err(wherry_runtimes::Error::Unavailable(_))), "{nobody:?}");
    let fake = FakeRuntime::default();
    for _ in 0..2 {
        let served = spawn(&fake, &socket);
        answering(&client).await;
        let mut events = client.events().await.unwrap();
        served.shutdown.cancel();
        served.task.await.unwrap().unwrap();
        assert!(!matches!(events.next().await, Some(Ok(_))), "the stream ends with its server");
        assert!(client.version().await.is_err());
    }
}

#[tokio::test]
async fn everything_that_was_said_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let fake = FakeRuntime::default();
    let served = spawn(&fake, &socket);
    let client = Client::connect(socket.to_str().unwrap()).unwrap();
    answering(&client).await;
    let config = PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: "p".to_owned(),
            uid: "u".to_owned(),
            namespace: "n".to_owned(),
            attempt: 7,
        },
        labels: wherry_runtimes::fake::map(&[("a", "b"), ("c", "")]),
        annotations: wherry_runtimes::fake::map(&[("note", "ä\n")]),
        ..Default::default()
    };
    let id = client.run_pod_sandbox(&config, "wasmtime").await.unwrap();
    assert_eq!(
        client.pod_sandbox_status(&id).await.unwrap().status,
        fake.pod_sandbox_status(&id).await.unwrap().status
    );
    let refused = client.exec_sync("c", &["ls".to_owned()], Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(wherry_runtimes::Error::NotFound(text)) if text.contains("\"c\"")));
    let forwarded = PortForwardRequest { pod_sandbox_id: id, port: vec![80] };
    let url = client.port_forward(&forwarded).await.unwrap();
    assert!(url.starts_with("http://127.0.0.1:") && url.contains("/portforward/"), "{url}");
    let attached = AttachRequest { container_id: "c".to_owned(), stdout: true, ..Default::default() };
    assert!(client.attach(&attached).await.unwrap_err().is_not_found());
    let run = ExecRequest { container_id: "c".to_owned(), cmd: vec!["ls".to_owned()], ..Default::default() };
    assert!(client.exec(&run).await.unwrap_err().is_not_found());
    served.shutdown.cancel();
    served.task.await.unwrap().unwrap();
}

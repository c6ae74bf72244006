//! The real containerd through our client, as root; elsewhere these tests say loudly that they were not run.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Containerd, busybox_layout, missing};
use wherry_runtime_cri::Client;
use wherry_runtimes::suite::{self, Subject};
use wherry_runtimes::{ImageService, PodSandboxConfig, PodSandboxMetadata, RuntimeService};

fn can_run(test: &str) -> bool {
    match missing() {
        None => true,
        Some(why) => {
            eprintln!("\n*** NOT RUN: {test}: {why} ***\n");
            false
        }
    }
}

async fn import(containerd: &Containerd, client: &Client, name: &str, script: &str) {
    let layout = tempfile::tempdir().unwrap();
    busybox_layout(layout.path(), name, script);
    let imported = client.import(layout.path(), None, &containerd.directory.path().join("scratch")).await;
    let imported = imported.unwrap_or_else(|error| panic!("{error}\n{}", containerd.log()));
    assert_eq!(imported[0].name, name);
}

#[tokio::test]
async fn containerd_passes_the_suite() {
    if !can_run("containerd_passes_the_suite") {
        return;
    }
    let containerd = Containerd::start("10.88.0.0/24");
    let client = Client::connect(containerd.socket().to_str().unwrap()).unwrap();
    client.import_pause(&containerd.directory.path().join("scratch")).await.unwrap();
    client.import_pause(&containerd.directory.path().join("scratch")).await.unwrap();
    let images = [
        ("docker.io/test/prints:v1", "echo hello; echo oops >&2"),
        ("docker.io/test/fails:v1", "exit 3"),
        ("docker.io/test/sleeps:v1", "exec sleep 600"),
    ];
    for (name, script) in images {
        import(&containerd, &client, name, script).await;
    }
    let names = images.map(|(name, _)| name);
    // The first use of an image unpacks it; containerd measures that now and then.
    let metadata =
        PodSandboxMetadata { name: "first".into(), uid: "first".into(), namespace: "n".into(), attempt: 0 };
    let first = PodSandboxConfig { metadata, ..Default::default() };
    let first = client
        .run_pod_sandbox(&first, "")
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", containerd.log()));
    client.remove_pod_sandbox(&first).await.unwrap();
    for _ in 0..600 {
        let usage = client.image_fs_info().await.unwrap();
        if usage.image_filesystems.iter().any(|fs| fs.used_bytes.unwrap_or(0) > 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let logs = containerd.directory.path().join("logs");
    let subject = Subject::new(Arc::new(client), "runc", names, containerd.pod_cidr(), logs);
    suite::run_all(&subject).await;
}

//! The fake keeps the promises that it stands in for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use wherry_runtimes::fake::{Behaviour, Exit, FakeRuntime, ManualClock, OnStop};
use wherry_runtimes::log::Stream;
use wherry_runtimes::suite::{self, Subject};
use wherry_runtimes::{
    ContainerConfig, ContainerMetadata, ContainerState, Error, ImageService, ImageSpec, PodSandboxConfig,
    PodSandboxMetadata, RuntimeService,
};

#[tokio::test]
async fn the_fake_passes_the_suite() {
    let logs = tempfile::tempdir().unwrap();
    let fake = FakeRuntime::default();
    for image in ["prints", "fails", "sleeps"] {
        fake.add_image(image);
    }
    let output = vec![(Stream::Stdout, "hello\n".to_owned()), (Stream::Stderr, "oops\n".to_owned())];
    fake.script(
        "prints",
        Behaviour { output, exit: Some((Duration::ZERO, Exit::code(0))), ..Default::default() },
    );
    fake.script("fails", Behaviour { exit: Some((Duration::ZERO, Exit::code(3))), ..Default::default() });
    let images = ["prints", "fails", "sleeps"];
    let subject = Subject::new(Arc::new(fake), "wasmtime", images, "10.77.0.0/24", logs.path().to_owned());
    suite::run_all(&subject).await;
}

async fn started(fake: &FakeRuntime, image: &str) -> String {
    fake.add_image(image);
    let metadata =
        PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
    let sandbox_config = PodSandboxConfig { metadata, ..Default::default() };
    let sandbox = fake.run_pod_sandbox(&sandbox_config, "").await.unwrap();
    let config = ContainerConfig {
        metadata: ContainerMetadata { name: "c".into(), attempt: 0 },
        image: ImageSpec { image: image.into(), ..Default::default() },
        ..Default::default()
    };
    let id = fake.create_container(&sandbox, &config, &sandbox_config).await.unwrap();
    fake.start_container(&id).await.unwrap();
    id
}

#[tokio::test]
async fn scripted_delays_follow_the_clock_that_was_given() {
    let clock = Arc::new(ManualClock::default());
    let fake = FakeRuntime::new(clock.clone());
    let exit = Exit { code: 7, reason: "Why".into(), message: "because".into() };
    fake.script("slow", Behaviour { exit: Some((Duration::from_secs(60), exit)), ..Default::default() });
    let mut events = fake.events().await.unwrap();
    let id = started(&fake, "slow").await;
    tokio::task::yield_now().await;
    assert_eq!(fake.container_status(&id).await.unwrap().state, ContainerState::Running);
    clock.advance(Duration::from_secs(60));
    while fake.container_status(&id).await.unwrap().state != ContainerState::Exited {
        events.next().await.unwrap().unwrap();
    }
    let status = fake.container_status(&id).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str(), status.message.as_str()), (7, "Why", "because"));
    assert_eq!(status.finished_at - status.started_at, 60_000_000_000);
}

#[tokio::test]
async fn a_container_that_pays_no_heed_is_killed_at_the_timeout() {
    let clock = Arc::new(ManualClock::default());
    let fake = FakeRuntime::new(clock.clone());
    fake.script("deaf", Behaviour { on_stop: OnStop::Ignore, ..Default::default() });
    let id = started(&fake, "deaf").await;
    let stop = fake.stop_container(&id, Duration::from_secs(30));
    let (stopped, ()) = tokio::join!(stop, async { clock.advance(Duration::from_secs(30)) });
    stopped.unwrap();
    assert_eq!(fake.container_status(&id).await.unwrap().exit_code, 137);
}

#[tokio::test]
async fn failures_are_injected_by_verb_and_calls_are_recorded() {
    let fake = FakeRuntime::default();
    fake.fail_next("Version", Error::Unavailable("restarting".into()));
    assert_eq!(fake.version().await, Err(Error::Unavailable("restarting".into())));
    assert!(fake.version().await.is_ok());
    fake.fail_pull("broken", Some(Error::NotFound("no such image".into())));
    let spec = ImageSpec { image: "broken".into(), ..Default::default() };
    assert!(fake.pull_image(&spec, None, &PodSandboxConfig::default()).await.unwrap_err().is_not_found());
    assert!(fake.calls().ends_with(&["PullImage broken".to_owned()]), "{:?}", fake.calls());
}

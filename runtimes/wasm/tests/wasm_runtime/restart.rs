//! A runtime that starts again reports what it knew, all of it ended.

use std::time::Duration;

use wherry_runtime_wasm::WasmRuntime;
use wherry_runtimes::{ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState, RuntimeService};

use super::fixture::{Fixture, command, config, container};

#[tokio::test]
async fn what_was_known_before_is_reported_and_can_be_removed() {
    let fixture = Fixture::start("127.70.30.0/24").await;
    let (pod, ended_pod) = (fixture.pod(&[]).await, fixture.pod(&[]).await);
    let running = fixture.start_container(&pod, container("http-guest")).await;
    let ended = fixture.start_container(&ended_pod, command(&["exits", "5"])).await;
    fixture.ended(&ended).await;
    // As after a crash: the old one is not told to stop.
    let again = WasmRuntime::start(config(fixture.dir.path(), "127.70.30.0/24")).await.unwrap();
    let sandboxes = again.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap();
    assert_eq!(sandboxes.len(), 2);
    assert!(sandboxes.iter().all(|sandbox| sandbox.state == PodSandboxState::NotReady));
    assert_eq!(again.pod_sandbox_status(&pod.id).await.unwrap().status.metadata, pod.config.metadata);
    let status = again.container_status(&running).await.unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 137));
    assert_eq!(status.reason, "ContainerStatusUnknown");
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let status = again.container_status(&ended).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (5, "Error"));
    again.stop_container(&running, Duration::ZERO).await.unwrap();
    for pod in [&pod, &ended_pod] {
        again.stop_pod_sandbox(&pod.id).await.unwrap();
        again.remove_pod_sandbox(&pod.id).await.unwrap();
    }
    assert!(again.list_containers(&ContainerFilter::default()).await.unwrap().is_empty());
    let third = WasmRuntime::start(config(fixture.dir.path(), "127.70.30.0/24")).await.unwrap();
    assert!(third.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap().is_empty());
    fixture.runtime.stop().await;
    let status = fixture.runtime.container_status(&running).await.unwrap();
    assert_eq!(status.state, ContainerState::Exited);
}

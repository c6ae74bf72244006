//! Tables of statuses.

use serde_json::{Value, json};

use super::super::observed::{SandboxObserved, Verdicts};
use super::*;

fn pod(policy: &str, spec: Value) -> Pod {
    let mut spec = spec;
    spec["restartPolicy"] = json!(policy);
    serde_json::from_value(json!({"metadata": {"name": "p", "generation": 3}, "spec": spec})).unwrap()
}

fn seen(name: &str, phase: ContainerPhase, exit_code: i32) -> ContainerObserved {
    ContainerObserved {
        id: format!("{name}-id"),
        name: name.to_owned(),
        phase,
        exit_code,
        ..Default::default()
    }
}

fn observed(containers: Vec<ContainerObserved>) -> PodObserved {
    let sandbox = SandboxObserved {
        id: "s".into(),
        is_ready: true,
        ips: vec!["127.64.0.2".into()],
        ..Default::default()
    };
    PodObserved { sandboxes: vec![sandbox], containers }
}

fn status(pod: &Pod, observed: &PodObserved, view: &WorkerView<'_>) -> PodStatus {
    generate_status(pod, observed, view, Timestamp::from_second(1_000).unwrap())
}

fn condition(status: &PodStatus, type_: &str) -> (String, String, String) {
    let found = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == type_).unwrap();
    (
        found.status.clone(),
        found.reason.clone().unwrap_or_default(),
        found.message.clone().unwrap_or_default(),
    )
}

use ContainerPhase::{Created, Exited, Running};

#[test]
fn the_phase_follows_from_the_containers() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let both = |a, b| vec![seen("a", a, 0), seen("b", b, 0)];
    let codes = |a, b| vec![seen("a", Exited, a), seen("b", Exited, b)];
    for (policy, containers, expected) in [
        ("Always", vec![], "Pending"),
        ("Always", both(Running, Created), "Pending"),
        ("Always", both(Running, Running), "Running"),
        ("Always", both(Running, Exited), "Running"),
        ("Always", both(Exited, Exited), "Running"),
        ("OnFailure", codes(0, 0), "Succeeded"),
        ("OnFailure", codes(0, 1), "Running"),
        ("Never", codes(0, 1), "Failed"),
        ("Never", codes(0, 0), "Succeeded"),
    ] {
        let status = status(&pod(policy, two.clone()), &observed(containers.clone()), &WorkerView::default());
        assert_eq!(status.phase.as_deref(), Some(expected), "{policy} {containers:?}");
    }
}

#[test]
fn a_pod_that_was_stopped_before_it_ended_has_failed() {
    let view = || WorkerView { is_terminal: true, ..WorkerView::default() };
    let pod = pod("Always", json!({"containers": [{"name": "a"}]}));
    for (containers, expected) in [
        (vec![seen("a", Exited, 0)], "Succeeded"),
        (vec![seen("a", Exited, 137)], "Failed"),
        (vec![], "Failed"),
    ] {
        assert_eq!(status(&pod, &observed(containers), &view()).phase.as_deref(), Some(expected));
    }
}

#[test]
fn init_containers_keep_the_pod_pending_and_say_so() {
    let pod = pod("Always", json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    let running = status(&pod, &observed(vec![seen("i", Running, 0)]), &WorkerView::default());
    assert_eq!(running.phase.as_deref(), Some("Pending"));
    assert_eq!(
        condition(&running, "Initialized"),
        ("False".into(), "ContainersNotInitialized".into(), "containers with incomplete status: [i]".into())
    );
    let waiting = running.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
    let done =
        status(&pod, &observed(vec![seen("i", Exited, 0), seen("a", Running, 0)]), &WorkerView::default());
    assert_eq!(done.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&done, "Initialized").0, "True");
    assert!(done.init_container_statuses.unwrap()[0].ready);
}

#[test]
fn readiness_and_startup_decide_whether_a_container_is_ready() {
    let probed = json!({"containers": [{"name": "a", "readinessProbe": {}, "startupProbe": {}}]});
    let with = |startup, readiness| ContainerObserved {
        verdicts: Verdicts { startup, readiness, ..Verdicts::default() },
        ..seen("a", Running, 0)
    };
    use Verdict::{Failure, Pending, Success};
    for (container, started, ready) in [
        (with(Pending, Pending), false, false),
        (with(Success, Pending), true, false),
        (with(Success, Success), true, true),
        (with(Success, Failure), true, false),
    ] {
        let status =
            status(&pod("Always", probed.clone()), &observed(vec![container]), &WorkerView::default());
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!((container.started, container.ready), (Some(started), ready));
        let expected = if ready {
            ("True", "", "")
        } else {
            ("False", "ContainersNotReady", "containers with unready status: [a]")
        };
        for type_ in ["Ready", "ContainersReady"] {
            let (status, reason, message) = condition(&status, type_);
            assert_eq!((status.as_str(), reason.as_str(), message.as_str()), expected);
        }
    }
}

#[test]
fn readiness_gates_hold_the_pod_back() {
    let mut pod =
        pod("Always", json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "a"}]}));
    let observed = observed(vec![seen("a", Running, 0)]);
    let missing = status(&pod, &observed, &WorkerView::default());
    assert_eq!(condition(&missing, "ContainersReady").0, "True");
    assert_eq!(
        condition(&missing, "Ready"),
        (
            "False".into(),
            "ReadinessGatesNotReady".into(),
            "corresponding condition of pod readiness gate \"x/y\" does not exist.".into()
        )
    );
    pod.status = serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).unwrap();
    assert_eq!(condition(&status(&pod, &observed, &WorkerView::default()), "Ready").0, "True");
}

#[test]
fn a_container_in_back_off_shows_its_last_end() {
    let waiting = Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
    let view = WorkerView {
        waiting: [("a".to_owned(), waiting)].into(),
        runtime_name: "fake",
        ..WorkerView::default()
    };
    let pod = pod("Always", json!({"containers": [{"name": "a"}]}));
    let ended = ContainerObserved { restart_count: 4, reason: "OOMKilled".into(), ..seen("a", Exited, 137) };
    let status = status(&pod, &observed(vec![ended]), &view);
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let state = container.state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    assert!(state.terminated.is_none());
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
    assert_eq!((container.restart_count, container.container_id.as_deref()), (4, Some("fake://a-id")));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn what_the_runtime_forgot_stays_as_it_was_written() {
    let mut pod = pod("Always", json!({"containers": [{"name": "a"}]}));
    pod.status = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "i", "imageID": "",
        "ready": false, "restartCount": 2, "containerID": "fake://old", "state": {"terminated": {"exitCode": 7,
        "containerID": "fake://old"}}}]}))
    .unwrap();
    let now = ContainerObserved { restart_count: 3, ..seen("a", Running, 0) };
    let view = WorkerView { runtime_name: "fake", ..WorkerView::default() };
    let status = status(&pod, &observed(vec![now]), &view);
    let last = status.container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 7);
}

#[test]
fn the_end_that_the_node_decided_is_the_reason() {
    let pod = pod("Always", json!({"containers": [{"name": "a"}]}));
    let ended = NodeEnding { reason: "OutOfcpu".into(), message: "Pod was rejected".into() };
    let view = WorkerView { ended: Some(ended), is_terminal: true, ..WorkerView::default() };
    let status = status(&pod, &PodObserved::default(), &view);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
    assert_eq!(condition(&status, "Ready").1, "PodFailed");
    assert_eq!(condition(&status, "PodReadyToStartContainers").0, "False");
}

#[test]
fn transition_times_are_kept_while_a_condition_stays() {
    let mut pod = pod("Always", json!({"containers": [{"name": "a"}]}));
    let observed = observed(vec![seen("a", Running, 0)]);
    let first = status(&pod, &observed, &WorkerView::default());
    pod.status = Some(first.clone());
    let later =
        generate_status(&pod, &observed, &WorkerView::default(), Timestamp::from_second(2_000).unwrap());
    assert_eq!(later, first);
    assert_eq!(later.observed_generation, Some(3));
}

#[test]
fn ephemeral_containers_have_statuses_of_their_own_that_decide_nothing() {
    let pod = pod(
        "Always",
        json!({"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "d", "image": "i"}, {"name": "e"}]}),
    );
    let found = observed(vec![seen("a", Running, 0), seen("d", Exited, 3)]);
    let status = status(&pod, &found, &WorkerView::default());
    let ephemeral = status.ephemeral_container_statuses.as_ref().unwrap();
    let state = |index: usize| ephemeral[index].state.clone().unwrap();
    assert_eq!(state(0).terminated.unwrap().exit_code, 3);
    assert_eq!(state(1).waiting.unwrap().reason.as_deref(), Some("ContainerCreating"));
    assert!(!ephemeral[0].ready && ephemeral[0].started.is_none());
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready").0, "True");
}

#[test]
fn of_a_refused_pod_nothing_is_said_but_why() {
    let ended = NodeEnding { reason: "OutOfcpu".into(), message: "no room".into() };
    let view = WorkerView { ended: Some(ended), ..WorkerView::default() };
    let refused = pod("Always", json!({"containers": [{"name": "a"}]}));
    let status = status(&refused, &PodObserved::default(), &view);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
    assert!(status.container_statuses.is_none());
}

//! Tables of plans.

use serde_json::{Value, json};

use super::super::observed::{SandboxObserved, Verdicts};
use super::*;

fn pod(policy: &str, spec: Value) -> Pod {
    let mut spec = spec;
    spec["restartPolicy"] = json!(policy);
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn sandbox(attempt: u32, is_ready: bool) -> SandboxObserved {
    SandboxObserved {
        id: format!("s{attempt}"),
        attempt,
        is_ready,
        ips: vec!["127.64.0.2".into()],
        ..Default::default()
    }
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

fn observed(sandboxes: Vec<SandboxObserved>, containers: Vec<ContainerObserved>) -> PodObserved {
    PodObserved { sandboxes, containers }
}

/// The plan in short: `kill`, `sandbox N`, `init [..]`, `start [..]`, `stop [..]`.
fn short(actions: &PodActions) -> String {
    let mut parts = Vec::new();
    if actions.kill_pod {
        parts.push("kill".to_owned());
    }
    if actions.create_sandbox {
        parts.push(format!("sandbox {}", actions.attempt));
    }
    if !actions.init_containers_to_start.is_empty() {
        parts.push(format!("init {:?}", actions.init_containers_to_start));
    }
    if !actions.containers_to_start.is_empty() {
        parts.push(format!("start {:?}", actions.containers_to_start));
    }
    if !actions.containers_to_kill.is_empty() {
        let names: Vec<&str> = actions.containers_to_kill.values().map(|k| k.name.as_str()).collect();
        parts.push(format!("stop {names:?}"));
    }
    parts.join(", ")
}

use ContainerPhase::{Created, Exited, Running, Unknown};

#[test]
fn plans_of_pods_without_init_containers() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let ready = || vec![sandbox(0, true)];
    let both =
        |a: (ContainerPhase, i32), b: (ContainerPhase, i32)| vec![seen("a", a.0, a.1), seen("b", b.0, b.1)];
    let cases: Vec<(&str, &str, PodObserved, &str)> = vec![
        ("nothing is there", "Always", observed(vec![], vec![]), "kill, sandbox 0, start [0, 1]"),
        ("only the sandbox is there", "Always", observed(ready(), vec![]), "start [0, 1]"),
        ("all run", "Always", observed(ready(), both((Running, 0), (Running, 0))), ""),
        ("one ended well", "Always", observed(ready(), both((Exited, 0), (Running, 0))), "start [0]"),
        ("one ended well", "OnFailure", observed(ready(), both((Exited, 0), (Running, 0))), ""),
        ("one failed", "OnFailure", observed(ready(), both((Exited, 1), (Running, 0))), "start [0]"),
        ("one failed", "Never", observed(ready(), both((Exited, 1), (Running, 0))), ""),
        ("all ended well", "OnFailure", observed(ready(), both((Exited, 0), (Exited, 0))), "kill"),
        ("all ended", "Never", observed(ready(), both((Exited, 0), (Exited, 1))), "kill"),
        (
            "one was made and not started",
            "Never",
            observed(ready(), both((Created, 0), (Running, 0))),
            "start [0]",
        ),
        (
            "one is in an unknown state",
            "Always",
            observed(ready(), both((Unknown, 0), (Running, 0))),
            "start [0], stop [\"a\"]",
        ),
        (
            "the sandbox died",
            "Always",
            observed(vec![sandbox(0, false)], both((Exited, 137), (Exited, 137))),
            "kill, sandbox 1, start [0, 1]",
        ),
        (
            "the sandbox died",
            "OnFailure",
            observed(vec![sandbox(0, false)], both((Exited, 0), (Exited, 137))),
            "kill, sandbox 1, start [1]",
        ),
        (
            "the sandbox died",
            "Never",
            observed(vec![sandbox(0, false)], both((Exited, 0), (Exited, 137))),
            "kill",
        ),
        (
            "the sandbox died before anything ran",
            "Never",
            observed(vec![sandbox(0, false)], vec![]),
            "kill, sandbox 1, start [0, 1]",
        ),
        (
            "two sandboxes are ready",
            "Always",
            observed(vec![sandbox(1, true), sandbox(0, true)], both((Running, 0), (Running, 0))),
            "kill, sandbox 2, start [0, 1]",
        ),
        (
            "the sandbox has no address",
            "Always",
            observed(vec![SandboxObserved { ips: vec![], ..sandbox(3, true) }], vec![]),
            "kill, sandbox 4, start [0, 1]",
        ),
    ];
    for (what, policy, observed, expected) in cases {
        let pod = pod(policy, two.clone());
        assert_eq!(short(&compute_pod_actions(&pod, &observed)), expected, "{what}, {policy}");
    }
}

#[test]
fn probes_and_changed_definitions_stop_containers() {
    let spec = json!({"containers": [{"name": "a", "image": "i:2"}]});
    let failing = |verdicts: Verdicts| ContainerObserved { verdicts, ..seen("a", Running, 0) };
    let liveness = Verdicts { liveness: Verdict::Failure, ..Verdicts::default() };
    let startup = Verdicts { startup: Verdict::Failure, ..Verdicts::default() };
    let readiness = Verdicts { readiness: Verdict::Failure, ..Verdicts::default() };
    let changed = ContainerObserved { hash: "other".into(), ..seen("a", Running, 0) };
    for (container, policy, plan, message) in [
        (
            failing(liveness),
            "Always",
            "start [0], stop [\"a\"]",
            "Container a failed liveness probe, will be restarted",
        ),
        (failing(liveness), "Never", "stop [\"a\"]", "Container a failed liveness probe"),
        (
            failing(startup),
            "OnFailure",
            "start [0], stop [\"a\"]",
            "Container a failed startup probe, will be restarted",
        ),
        (failing(readiness), "Always", "", ""),
        (changed, "Never", "start [0], stop [\"a\"]", "Container a definition changed, will be restarted"),
    ] {
        let actions = compute_pod_actions(
            &pod(policy, spec.clone()),
            &observed(vec![sandbox(0, true)], vec![container]),
        );
        assert_eq!(short(&actions), plan, "{message}");
        let messages: Vec<&str> = actions.containers_to_kill.values().map(|k| k.message.as_str()).collect();
        assert_eq!(messages.first().copied().unwrap_or_default(), message);
    }
}

#[test]
fn plans_of_init_containers_and_sidecars() {
    let spec = json!({
        "initContainers": [{"name": "i0"}, {"name": "side", "restartPolicy": "Always", "startupProbe": {}}, {"name": "i2"}],
        "containers": [{"name": "a"}],
    });
    let side = |startup: Verdict| ContainerObserved {
        verdicts: Verdicts { startup, ..Verdicts::default() },
        ..seen("side", Running, 0)
    };
    let done = || seen("i0", Exited, 0);
    let cases: Vec<(&str, &str, Vec<ContainerObserved>, &str)> = vec![
        ("nothing ran yet", "Always", vec![], "init [0]"),
        ("the first runs", "Always", vec![seen("i0", Running, 0)], ""),
        ("the first failed", "Always", vec![seen("i0", Exited, 1)], "init [0]"),
        ("the first failed", "Never", vec![seen("i0", Exited, 1)], "kill"),
        ("the first is done", "Never", vec![done()], "init [1]"),
        ("the sidecar has not started up", "Always", vec![done(), side(Verdict::Pending)], ""),
        ("the sidecar is up", "Always", vec![done(), side(Verdict::Success)], "init [2]"),
        (
            "the sidecar failed to start up",
            "Always",
            vec![done(), side(Verdict::Failure)],
            "init [1], stop [\"side\"]",
        ),
        ("the sidecar ended", "Never", vec![done(), seen("side", Exited, 0)], "init [1]"),
        ("all are done", "Always", vec![done(), side(Verdict::Success), seen("i2", Exited, 0)], "start [0]"),
        (
            "the sidecar ended while the pod runs",
            "Never",
            vec![done(), seen("side", Exited, 1), seen("i2", Exited, 0), seen("a", Running, 0)],
            "init [1]",
        ),
        (
            "done init containers were removed",
            "Always",
            vec![side(Verdict::Success), seen("a", Exited, 1)],
            "start [0]",
        ),
        (
            "the pod is done and its sidecar is not started again",
            "Never",
            vec![done(), seen("side", Exited, 1), seen("i2", Exited, 0), seen("a", Exited, 0)],
            "kill",
        ),
    ];
    for (what, policy, containers, expected) in cases {
        let actions =
            compute_pod_actions(&pod(policy, spec.clone()), &observed(vec![sandbox(0, true)], containers));
        assert_eq!(short(&actions), expected, "{what}, {policy}");
    }
}

#[test]
fn a_new_sandbox_starts_from_the_first_init_container() {
    let spec = json!({"initContainers": [{"name": "i0"}], "containers": [{"name": "a"}]});
    let containers = vec![seen("i0", Exited, 0), seen("a", Exited, 137)];
    let actions = compute_pod_actions(&pod("Always", spec), &observed(vec![sandbox(0, false)], containers));
    assert_eq!(short(&actions), "kill, sandbox 1, init [0]");
}

#[test]
fn a_deleted_pod_is_not_restarted() {
    let mut pod = pod("Always", json!({"containers": [{"name": "a"}]}));
    pod.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default()));
    let actions = compute_pod_actions(&pod, &observed(vec![sandbox(0, true)], vec![seen("a", Exited, 0)]));
    assert_eq!(short(&actions), "kill");
}

#[test]
fn ephemeral_containers_start_once_and_wait_for_nothing() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
        "ephemeralContainers": [{"name": "d"}, {"name": "e"}]});
    let pod = pod("Always", spec);
    let initializing = vec![seen("i", ContainerPhase::Running, 0), seen("e", ContainerPhase::Exited, 1)];
    let actions = compute_pod_actions(&pod, &observed(vec![sandbox(0, true)], initializing));
    assert_eq!(actions.ephemeral_containers_to_start, [0]);
    assert!(actions.containers_to_start.is_empty());
    // Without a sandbox there is nothing to start them in.
    let actions = compute_pod_actions(&pod, &observed(vec![], vec![]));
    assert!(actions.create_sandbox && actions.ephemeral_containers_to_start.is_empty());
}

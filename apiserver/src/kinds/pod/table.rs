//! The row of a pod in the Table form. Source: `printPod` of `k8s.io/kubernetes/pkg/printers/internalversion`.

use serde_json::Value;

use crate::kinds::json::{flag, integer, list, text};
use crate::kinds::table::{NONE, age, name, since, unix_seconds};

/// What the container statuses add up to.
#[derive(Debug, Default)]
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    /// The last time a container ended and was started again.
    last_restart: Option<i64>,
    last_restart_text: String,
}

impl Summary {
    fn count(&mut self, status: &Value) {
        self.restarts += integer(status, "/restartCount");
        let finished = text(status, "/lastState/terminated/finishedAt");
        let at = unix_seconds(finished);
        if at > self.last_restart {
            self.last_restart = at;
            finished.clone_into(&mut self.last_restart_text);
        }
    }
}

/// The cells of a pod's row.
pub(crate) fn cells(pod: &Value, now_unix_seconds: i64) -> Vec<Value> {
    let init = list(pod, "/spec/initContainers");
    let sidecars = init.iter().filter(|container| is_sidecar(container)).count();
    let total = list(pod, "/spec/containers").len() + sidecars;
    let summary = summarize(pod);
    let mut restarts = summary.restarts.to_string();
    if summary.restarts != 0 && summary.last_restart.is_some() {
        restarts = format!("{restarts} ({} ago)", since(&summary.last_restart_text, now_unix_seconds));
    }
    let pod_ip =
        list(pod, "/status/podIPs").first().map_or(text(pod, "/status/podIP"), |entry| text(entry, "/ip"));
    let or_none = |value: &str| Value::from(if value.is_empty() { NONE } else { value });
    vec![
        name(pod),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now_unix_seconds),
        or_none(pod_ip),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list(pod, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| text(condition, "/status") == "True")
}

fn summarize(pod: &Value) -> Summary {
    let phase = text(pod, "/status/phase");
    let status_reason = text(pod, "/status/reason");
    let reason = if status_reason.is_empty() { phase } else { status_reason }.to_owned();
    let mut summary = Summary { reason, ..Summary::default() };
    if condition(pod, "PodScheduled").is_some_and(|condition| text(condition, "/reason") == "SchedulingGated")
    {
        summary.reason = "SchedulingGated".to_owned();
    }
    let (initializing, sidecars) = initialize(pod, &mut summary);
    if !initializing || is_true(pod, "Initialized") {
        (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
        summary.last_restart_text = sidecars.last_restart_text;
        run(pod, &mut summary);
    }
    let deleted = !text(pod, "/metadata/deletionTimestamp").is_empty();
    if deleted && status_reason == "NodeLost" {
        summary.reason = "Unknown".to_owned();
    } else if deleted && !matches!(phase, "Failed" | "Succeeded") {
        summary.reason = "Terminating".to_owned();
    }
    summary
}

/// How far the init containers are: whether they still run, and the restarts of sidecars alone.
fn initialize(pod: &Value, summary: &mut Summary) -> (bool, Summary) {
    let containers = list(pod, "/spec/initContainers");
    let mut sidecars = Summary::default();
    for (i, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        summary.count(status);
        let own = containers.iter().find(|container| text(container, "/name") == text(status, "/name"));
        let is_sidecar = own.is_some_and(is_sidecar);
        if is_sidecar {
            sidecars.count(status);
        }
        let terminated = status.pointer("/state/terminated").filter(|state| !state.is_null());
        let waiting = text(status, "/state/waiting/reason");
        if let Some(state) = terminated
            && integer(state, "/exitCode") == 0
        {
            continue;
        }
        if is_sidecar && flag(status, "/started") {
            summary.ready += usize::from(flag(status, "/ready"));
            continue;
        }
        summary.reason = match terminated {
            Some(state) => format!("Init:{}", ended(state)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", containers.len()),
        };
        return (true, sidecars);
    }
    (false, sidecars)
}

/// Why a container ended.
fn ended(state: &Value) -> String {
    let reason = text(state, "/reason");
    let signal = integer(state, "/signal");
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", integer(state, "/exitCode"))
    }
}

fn run(pod: &Value, summary: &mut Summary) {
    let mut has_running = false;
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        summary.count(status);
        let waiting = text(status, "/state/waiting/reason");
        let terminated = status.pointer("/state/terminated").filter(|state| !state.is_null());
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if let Some(state) = terminated {
            summary.reason = ended(state);
        } else if flag(status, "/ready")
            && status.pointer("/state/running").is_some_and(|state| !state.is_null())
        {
            has_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && has_running {
        summary.reason = if is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| is_true(pod, text(gate, "/conditionType"))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::NOW;

    fn row(status: Value, spec: Value, deleted: bool) -> Vec<String> {
        let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:03:05Z"}, "spec": spec, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z".into();
        }
        cells(&pod, NOW)[1..4].iter().map(|cell| cell.as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn the_status_column_tells_what_containers_do() {
        let one = json!({"containers": [{"name": "c"}]});
        let with_init =
            json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let running = json!({"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}});
        let crashing = json!({"name": "c", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-02T03:04:00Z"}}});
        let table = [
            (json!({"phase": "Pending"}), &one, false, ["0/1", "Pending", "0"]),
            (
                json!({"phase": "Running", "containerStatuses": [running]}),
                &one,
                false,
                ["1/1", "Running", "0"],
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running]}),
                &one,
                true,
                ["1/1", "Terminating", "0"],
            ),
            (
                json!({"phase": "Running", "containerStatuses": [crashing]}),
                &one,
                false,
                ["0/1", "CrashLoopBackOff", "3 (5s ago)"],
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                &one,
                true,
                ["0/1", "Completed", "0"],
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]}),
                &one,
                false,
                ["0/1", "ExitCode:3", "0"],
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}],
                    "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                &with_init,
                false,
                ["0/1", "Init:1/2", "0"],
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}),
                &with_init,
                false,
                ["0/1", "Init:Error", "0"],
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                &one,
                false,
                ["0/1", "SchedulingGated", "0"],
            ),
        ];
        for (status, spec, deleted, expected) in table {
            assert_eq!(row(status.clone(), spec.clone(), deleted), expected, "{status}");
        }
    }

    #[test]
    fn a_running_sidecar_counts_as_ready() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let status = json!({"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]});
        assert_eq!(row(status, spec, false), ["2/2", "Running", "0"]);
    }
}

//! The node's conditions.

use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::machine::Free;

/// Less available memory than this is pressure. Source: Kubernetes' default `memory.available`.
const MIN_MEMORY_BYTES: i64 = 100 << 20;
/// A file system with less than this share free is under pressure, unless [`ENOUGH_STORAGE_BYTES`] are free.
const MIN_STORAGE_PERCENT: i64 = 10;
/// That much free space is enough however large the file system is.
const ENOUGH_STORAGE_BYTES: i64 = 2 << 30;
/// Fewer free process ids than this is pressure.
const MIN_PIDS: i64 = 1000;

/// What the conditions are made from.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// What is free.
    pub free: Free,
    /// Why the node is not ready.
    pub problems: Vec<String>,
    /// Whether the node's pod network is usable, or why not; `None` where nothing has to be done for it.
    pub network: Option<Result<(), String>>,
    /// Why Linux containers do not run, where the node is to run them; the node is ready for other pods all the same.
    pub container_runtime: Option<Vec<String>>,
}

/// The condition of a node that is to run Linux containers beside Wasm pods: whether it can.
pub const CONTAINER_RUNTIME_READY: &str = "ContainerRuntimeReady";

/// The conditions now; transition times are kept from `old` where nothing changed.
pub fn conditions(health: &Health, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let make = |type_: &str, is_true: bool, reason: &str, message: String| {
        let status = if is_true { "True" } else { "False" };
        let known = old.iter().find(|c| c.type_ == type_ && c.status == status);
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: known
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        }
    };
    let free = health.free;
    let pressure = |type_: &str, is_under, reasons: [&str; 2], messages: [&str; 2]| {
        let index = usize::from(is_under);
        make(type_, is_under, reasons[index], messages[index].to_owned())
    };
    let mut conditions = vec![
        pressure(
            "MemoryPressure",
            free.memory_bytes < MIN_MEMORY_BYTES,
            ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
            ["kubelet has sufficient memory available", "kubelet has insufficient memory available"],
        ),
        pressure(
            "DiskPressure",
            free.storage_percent < MIN_STORAGE_PERCENT && free.storage_bytes < ENOUGH_STORAGE_BYTES,
            ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
            ["kubelet has no disk pressure", "kubelet has disk pressure"],
        ),
        pressure(
            "PIDPressure",
            free.pids < MIN_PIDS,
            ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
            ["kubelet has sufficient PID available", "kubelet has insufficient PID available"],
        ),
        if health.problems.is_empty() {
            make("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned())
        } else {
            make("Ready", false, "KubeletNotReady", format!("[{}]", health.problems.join(", ")))
        },
    ];
    // The reasons of Kubernetes' route controller, whose part this is.
    conditions.extend(health.network.as_ref().map(|network| match network {
        Ok(()) => {
            make("NetworkUnavailable", false, "RouteCreated", "the node's pod network is set up".to_owned())
        }
        Err(reason) => make("NetworkUnavailable", true, "NoRouteCreated", reason.clone()),
    }));
    match health.container_runtime.as_deref() {
        None => {}
        Some([]) => {
            let message = "the container runtime is ready".to_owned();
            conditions.push(make(CONTAINER_RUNTIME_READY, true, "ContainerRuntimeIsUp", message));
        }
        Some(problems) => {
            let message = problems.join(", ");
            conditions.push(make(CONTAINER_RUNTIME_READY, false, "ContainerRuntimeNotReady", message));
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_transition_time_while_nothing_changes() {
        let free = Free { memory_bytes: 1 << 30, storage_bytes: 1 << 40, storage_percent: 50, pids: 30_000 };
        let healthy = Health { free, ..Health::default() };
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = conditions(&healthy, &[], at(10));
        let types: Vec<(&str, &str)> = first.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        let expected = [
            ("MemoryPressure", "False"),
            ("DiskPressure", "False"),
            ("PIDPressure", "False"),
            ("Ready", "True"),
        ];
        assert_eq!(types, expected);
        let broken = Health {
            problems: vec!["container runtime is down".into()],
            free: Free { memory_bytes: 1, ..free },
            network: Some(Err("no route".into())),
            container_runtime: Some(vec!["container runtime is down: gone".into()]),
        };
        let second = conditions(&broken, &first, at(20));
        assert_eq!(second[0].reason.as_deref(), Some("KubeletHasInsufficientMemory"));
        assert_eq!(second[1].last_transition_time, Some(Time(at(10))));
        assert_eq!(second[3].last_transition_time, Some(Time(at(20))));
        assert_eq!(second[3].message.as_deref(), Some("[container runtime is down]"));
        let of = |name: &str| second.iter().find(|c| c.type_ == name).map(|c| c.status.as_str());
        assert_eq!((of("NetworkUnavailable"), of(CONTAINER_RUNTIME_READY)), (Some("True"), Some("False")));
    }
}

//! CPU, memory and huge pages as the kernel's cgroups count them.
//!
//! Source: Kubernetes' `kuberuntime_container_linux.go`, `qos/policy.go` and `cm/helpers_linux.go`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use wherry_runtimes::{HugepageLimit, LinuxContainerResources};

use super::container_config::NodeFacts;
use super::observed::is_sidecar;
use super::resources::{Amounts, amounts, pod_requests, qos_class};

/// Period of CPU quotas, in microseconds. Source: Kubernetes.
pub const CPU_PERIOD_MICROSECONDS: i64 = 100_000;
/// Smallest quota, in microseconds. Source: the kernel.
const MIN_CPU_QUOTA_MICROSECONDS: i64 = 1000;
/// Smallest CPU shares. Source: the kernel.
pub const MIN_CPU_SHARES: i64 = 2;
/// Largest CPU shares. Source: the kernel.
const MAX_CPU_SHARES: i64 = 262_144;
/// From this priority on a pod belongs to the system. Source: Kubernetes' `SystemCriticalPriority`.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// CPU shares of a request in thousandths of a core.
pub fn cpu_shares(millicores: i64) -> i64 {
    millicores.saturating_mul(1024).saturating_div(1000).clamp(MIN_CPU_SHARES, MAX_CPU_SHARES)
}

/// Microseconds of each period for a limit in thousandths of a core; 0 without a limit.
pub fn cpu_quota(millicores: i64) -> i64 {
    if millicores <= 0 {
        return 0;
    }
    (millicores.saturating_mul(CPU_PERIOD_MICROSECONDS) / 1000).max(MIN_CPU_QUOTA_MICROSECONDS)
}

fn limits(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|r| r.limits.as_ref()))
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|r| r.requests.as_ref()))
}

/// A container's limits and shares.
pub fn container_resources(pod: &Pod, container: &Container, node: &NodeFacts) -> LinuxContainerResources {
    let limits = limits(container.resources.as_ref());
    let requests = requests(container.resources.as_ref());
    let cpu_limit = limits.get("cpu").copied().unwrap_or(0);
    let cpu_request = requests.get("cpu").copied().unwrap_or(cpu_limit);
    LinuxContainerResources {
        cpu_period: if cpu_limit > 0 { CPU_PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: cpu_quota(cpu_limit),
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: limits.get("memory").copied().unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, container, node.memory_bytes),
        hugepage_limits: hugepage_limits(&limits, &node.hugepage_bytes),
        ..LinuxContainerResources::default()
    }
}

/// How eagerly the kernel kills a container when memory runs out: -997 hardly ever, 1000 first.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let is_node_critical = spec.priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
        && spec.priority_class_name.as_deref() == Some("system-node-critical");
    if is_node_critical {
        return GUARANTEED;
    }
    match qos_class(spec) {
        "Guaranteed" => return GUARANTEED,
        "BestEffort" => return BEST_EFFORT,
        _ => {}
    }
    if node_memory_bytes <= 0 {
        return BEST_EFFORT - 1;
    }
    let of = |container: &Container| {
        let limit = limits(container.resources.as_ref()).get("memory").copied().unwrap_or(0);
        let request = requests(container.resources.as_ref()).get("memory").copied().unwrap_or(limit);
        1000 - request.saturating_mul(1000) / node_memory_bytes
    };
    let mut score = of(container);
    if is_sidecar(container) {
        // A sidecar does not go before the containers that it is beside.
        score = spec.containers.iter().map(of).fold(score, i64::min);
    }
    if score < 1000 + GUARANTEED {
        return 1000 + GUARANTEED;
    }
    if score >= BEST_EFFORT { BEST_EFFORT - 1 } else { score }
}

/// Limits of all sizes that the machine has; 0 where the container has none.
fn hugepage_limits(limits: &Amounts, sizes: &[u64]) -> Vec<HugepageLimit> {
    sizes
        .iter()
        .map(|bytes| {
            let limit = limits
                .iter()
                .filter_map(|(name, amount)| Some((name.strip_prefix("hugepages-")?, amount)))
                .find(|(size, _)| {
                    super::resources::amount(
                        "",
                        &k8s_openapi::apimachinery::pkg::api::resource::Quantity((*size).to_owned()),
                    ) == i64::try_from(*bytes).ok()
                })
                .and_then(|(_, amount)| u64::try_from(*amount).ok());
            HugepageLimit { page_size: page_size(*bytes), limit: limit.unwrap_or(0) }
        })
        .collect()
}

/// `2MB`, `1GB`, as the kernel's hugetlb cgroup names sizes.
fn page_size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{}GB", b >> 30),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    }
}

/// What a whole pod may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodResources {
    /// CPU shares.
    pub cpu_shares: i64,
    /// Microseconds of each [`CPU_PERIOD_MICROSECONDS`]; `None` without a limit.
    pub cpu_quota: Option<i64>,
    /// Bytes; `None` without a limit.
    pub memory_bytes: Option<i64>,
}

/// What a pod's cgroup is limited to: the sum of its containers, when each has a limit.
pub fn pod_resources(spec: &PodSpec) -> PodResources {
    let requested = pod_requests(spec);
    let mut own = PodResources {
        cpu_shares: cpu_shares(requested.get("cpu").copied().unwrap_or(0)),
        cpu_quota: pod_limit(spec, "cpu").map(cpu_quota),
        memory_bytes: pod_limit(spec, "memory"),
    };
    if qos_class(spec) == "BestEffort" {
        own.cpu_shares = MIN_CPU_SHARES;
    }
    own
}

/// The pod's limit of a resource: its own, or the containers' together when each has one; the overhead is added.
fn pod_limit(spec: &PodSpec, name: &str) -> Option<i64> {
    let of = |container: &Container| {
        limits(container.resources.as_ref()).get(name).copied().filter(|limit| *limit > 0)
    };
    let overhead = amounts(spec.overhead.as_ref()).get(name).copied().unwrap_or(0);
    if let Some(limit) = limits(spec.resources.as_ref()).get(name).filter(|limit| **limit > 0) {
        return Some(limit.saturating_add(overhead));
    }
    let mut total = 0_i64;
    for container in &spec.containers {
        total = total.saturating_add(of(container)?);
    }
    let (mut sidecars, mut peak) = (0_i64, 0_i64);
    for container in spec.init_containers.iter().flatten() {
        let limit = of(container)?;
        if is_sidecar(container) {
            total = total.saturating_add(limit);
            sidecars = sidecars.saturating_add(limit);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.saturating_add(limit));
        }
    }
    Some(total.max(peak).saturating_add(overhead))
}

/// The pod's resources as the sandbox's configuration has them: all of it, and the overhead alone.
pub fn sandbox_resources(spec: &PodSpec) -> (LinuxContainerResources, Option<LinuxContainerResources>) {
    let all = pod_resources(&PodSpec { overhead: None, ..spec.clone() });
    let whole = LinuxContainerResources {
        cpu_shares: all.cpu_shares,
        cpu_period: CPU_PERIOD_MICROSECONDS,
        cpu_quota: all.cpu_quota.unwrap_or(0),
        memory_limit_in_bytes: all.memory_bytes.unwrap_or(0),
        ..LinuxContainerResources::default()
    };
    let overhead = spec.overhead.as_ref().filter(|o| !o.is_empty()).map(|overhead| {
        let overhead = amounts(Some(overhead));
        let cpu = overhead.get("cpu").copied().unwrap_or(0);
        LinuxContainerResources {
            cpu_shares: cpu_shares(cpu),
            cpu_period: CPU_PERIOD_MICROSECONDS,
            cpu_quota: cpu_quota(cpu),
            memory_limit_in_bytes: overhead.get("memory").copied().unwrap_or(0),
            ..LinuxContainerResources::default()
        }
    });
    (whole, overhead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn shares_and_quotas_stay_within_what_the_kernel_takes() {
        assert_eq!([0, 1, 500, 1000, 1_000_000].map(cpu_shares), [2, 2, 512, 1024, 262_144]);
        assert_eq!([0, 1, 500, 2000].map(cpu_quota), [0, 1000, 50_000, 200_000]);
    }

    #[test]
    fn the_kernel_kills_best_effort_first_and_guaranteed_last() {
        let gib = 1_i64 << 30;
        let burstable = |memory: &str| json!({"containers": [{"name": "a", "resources": {"requests": {"memory": memory}}}]});
        let sidecar = json!({
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Mi"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"memory": "4Gi"}}}],
        });
        for (spec, expected) in [
            (json!({"containers": [{"name": "a"}]}), 1000),
            (
                json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}),
                -997,
            ),
            (burstable("2Gi"), 750),
            (burstable("1"), 999),
            (burstable("8Gi"), 3),
            (
                json!({"containers": [{"name": "a"}], "priority": 2_000_001_000, "priorityClassName": "system-node-critical"}),
                -997,
            ),
        ] {
            let pod = pod(spec.clone());
            let container = &pod.spec.as_ref().unwrap().containers[0];
            assert_eq!(oom_score_adj(&pod, container, 8 * gib), expected, "{spec}");
        }
        let pod = pod(sidecar);
        let sidecar = &pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0];
        assert_eq!(oom_score_adj(&pod, sidecar, 8 * gib), 500);
    }

    #[test]
    fn huge_pages_are_limited_for_every_size_that_the_machine_has() {
        let limits = Amounts::from([("hugepages-2Mi".to_owned(), 4 << 20), ("cpu".to_owned(), 1)]);
        let seen: Vec<(String, u64)> = hugepage_limits(&limits, &[2 << 20, 1 << 30])
            .into_iter()
            .map(|limit| (limit.page_size, limit.limit))
            .collect();
        assert_eq!(seen, [("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 0)]);
    }

    #[test]
    fn a_pod_is_limited_when_all_its_containers_are() {
        let two = |second: Value| {
            pod(json!({"containers": [
                {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}},
                {"name": "b", "resources": second},
            ], "overhead": {"cpu": "100m", "memory": "1Mi"}}))
            .spec
            .unwrap()
        };
        let all = pod_resources(&two(json!({"limits": {"cpu": "250m", "memory": "32Mi"}})));
        assert_eq!(
            all,
            PodResources { cpu_shares: 870, cpu_quota: Some(85_000), memory_bytes: Some(97 << 20) }
        );
        let some = pod_resources(&two(json!({"limits": {"cpu": "250m"}})));
        assert_eq!((some.cpu_quota, some.memory_bytes), (Some(85_000), None));
        let none = pod_resources(&pod(json!({"containers": [{"name": "a"}]})).spec.unwrap());
        assert_eq!(none, PodResources { cpu_shares: 2, cpu_quota: None, memory_bytes: None });
        let (whole, overhead) = sandbox_resources(&two(json!({"limits": {"cpu": "250m", "memory": "32Mi"}})));
        assert_eq!((whole.cpu_quota, whole.memory_limit_in_bytes), (75_000, 96 << 20));
        assert_eq!(overhead.unwrap().memory_limit_in_bytes, 1 << 20);
    }
}

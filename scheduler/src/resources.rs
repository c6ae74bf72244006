//! Amounts of resources, and how much of them a pod asks for. Pure.
//!
//! Source: `k8s.io/component-helpers/resource`, as of Kubernetes 1.36.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wherry_machinery::quantity::Quantity;

/// What a container without a CPU request counts for in scores, in thousandths of a core.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts for in scores: 200 MiB.
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts of each resource. CPU, memory and ephemeral storage, which every pod is about, have places of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millicores: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of ephemeral storage.
    pub ephemeral_storage_bytes: i64,
    /// All others, by name: huge pages and extended resources.
    pub scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// From a list as in `requests`, `overhead` or `allocatable`. What cannot be read counts as nothing: the API server has
    /// validated it.
    pub fn from_list(list: &BTreeMap<String, ApiQuantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            resources.set(name, quantity);
        }
        resources
    }

    fn set(&mut self, name: &str, quantity: &ApiQuantity) {
        let quantity = quantity.0.parse().unwrap_or_else(|_| Quantity::zero());
        match name {
            "cpu" => self.cpu_millicores = quantity.milli_value(),
            "memory" => self.memory_bytes = quantity.value(),
            "ephemeral-storage" => self.ephemeral_storage_bytes = quantity.value(),
            // A number of pods is the node's own limit, not an amount that pods ask for.
            "pods" => {}
            _ => {
                self.scalars.insert(name.to_owned(), quantity.value());
            }
        }
    }

    /// The sum, in place.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// The difference, in place.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// The greater of each, in place.
    pub fn maximum(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu_millicores = with(self.cpu_millicores, other.cpu_millicores);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_storage_bytes = with(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes);
        for (name, amount) in &other.scalars {
            let own = self.scalars.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }

    /// How much there is of a scalar resource.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.get(name).copied().unwrap_or(0)
    }
}

/// CPU and memory for scores: every container counts, also one that asks for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Thousandths of a core.
    pub cpu_millicores: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
}

/// What the pod needs of a node: the containers together, or what starts before them if that is more, and the overhead.
pub fn pod_requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| sum_of(spec, container_requests)).unwrap_or_default()
}

/// The same for scores.
pub fn pod_weight(pod: &Pod) -> Weight {
    let Some(spec) = pod.spec.as_ref() else { return Weight::default() };
    let sum = sum_of(spec, |container| {
        let mut requests = container_requests(container);
        let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let asks_for = |name| asked.is_some_and(|asked| asked.contains_key(name));
        if !asks_for("cpu") {
            requests.cpu_millicores = DEFAULT_MILLI_CPU;
        }
        if !asks_for("memory") {
            requests.memory_bytes = DEFAULT_MEMORY_BYTES;
        }
        requests
    });
    Weight { cpu_millicores: sum.cpu_millicores, memory_bytes: sum.memory_bytes }
}

fn container_requests(container: &Container) -> Resources {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.map(Resources::from_list).unwrap_or_default()
}

fn sum_of(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container));
    }
    // Init containers run one after another, beside the sidecars that were started before them.
    let mut sidecars = Resources::default();
    let mut before = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut requests = of(container);
        if is_sidecar(container) {
            sum.add(&requests);
            sidecars.add(&requests);
            requests = sidecars.clone();
        } else {
            requests.add(&sidecars);
        }
        before.maximum(&requests);
    }
    sum.maximum(&before);
    // What the pod as a whole asks for stands in the place of the sum.
    let pod_level = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    for (name, quantity) in pod_level.into_iter().flatten() {
        sum.set(name, quantity);
    }
    if let Some(overhead) = &spec.overhead {
        sum.add(&Resources::from_list(overhead));
    }
    sum
}

/// An init container that goes on running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "a" }, "spec": spec })).unwrap()
    }

    fn container(name: &str, cpu: &str, memory: &str) -> Value {
        json!({ "name": name, "resources": { "requests": { "cpu": cpu, "memory": memory } } })
    }

    fn sidecar(name: &str, cpu: &str, memory: &str) -> Value {
        let mut sidecar = container(name, cpu, memory);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }

    #[test]
    fn a_pod_asks_for_the_most_that_runs_at_one_time() {
        for (told, spec, expected) in [
            ("nothing", json!({ "containers": [{ "name": "a" }] }), (0, 0)),
            (
                "containers add up",
                json!({ "containers": [container("a", "100m", "1Ki"), container("b", "1", "1Ki")] }),
                (1100, 2048),
            ),
            (
                "the greatest init container, if it is more",
                json!({
                    "initContainers": [container("i", "2", "1Ki"), container("j", "1", "10Ki")],
                    "containers": [container("a", "1500m", "2Ki")],
                }),
                (2000, 10240),
            ),
            (
                "a sidecar runs beside the containers and later init containers",
                json!({
                    "initContainers": [
                        container("i", "1", "1Ki"), sidecar("s", "500m", "1Ki"), container("j", "2", "1Ki"),
                    ],
                    "containers": [container("a", "1", "1Ki")],
                }),
                (2500, 2048),
            ),
            (
                "what the pod asks for as a whole",
                json!({ "containers": [container("a", "1", "1Ki")], "resources": { "requests": { "cpu": "3" } } }),
                (3000, 1024),
            ),
            (
                "overhead comes on top",
                json!({ "containers": [container("a", "1", "1Ki")], "overhead": { "cpu": "250m", "memory": "1Ki" } }),
                (1250, 2048),
            ),
        ] {
            let requests = pod_requests(&pod(spec));
            assert_eq!((requests.cpu_millicores, requests.memory_bytes), expected, "{told}");
        }
    }

    #[test]
    fn a_container_that_asks_for_nothing_counts_in_scores() {
        let spec = json!({ "containers": [
            { "name": "a" },
            { "name": "b", "resources": { "requests": { "cpu": "0", "memory": "1Mi" } } },
        ] });
        let weight = pod_weight(&pod(spec));
        assert_eq!(weight, Weight { cpu_millicores: 100, memory_bytes: (200 << 20) + (1 << 20) });
    }

    #[test]
    fn other_resources_are_kept_by_name() {
        let spec = json!({ "containers": [{ "name": "a", "resources": { "requests": {
            "example.com/gpu": "2", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1Gi",
        } } }] });
        let requests = pod_requests(&pod(spec));
        assert_eq!(requests.scalar("example.com/gpu"), 2);
        assert_eq!(requests.scalar("hugepages-2Mi"), 4 << 20);
        assert_eq!(requests.ephemeral_storage_bytes, 1 << 30);
    }
}

//! Scheduling cycles per second over 5,000 nodes, without a client: the decision alone. Prints figures and asserts none.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and ends at the first failure"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use wherry_scheduler::cache::Cache;
use wherry_scheduler::cycle::{Decision, cycle};
use wherry_scheduler::framework::Profile;
use wherry_scheduler::pod_info::PodInfo;

/// The budget at 5,000 nodes; kube-scheduler, whole, is known to do 680 to 810 (not measured in this run).
const BUDGET_PODS_PER_SECOND: f64 = 5000.0;
const TIME: Duration = Duration::from_secs(3);

fn main() {
    for nodes in [1, 100, 1000, 5000] {
        let mut cache = Cache::default();
        for n in 0..nodes {
            let node = json!({
                "metadata": { "name": format!("node-{n}"), "labels": { "zone": format!("zone-{}", n % 3) } },
                "status": { "allocatable": { "cpu": "1M", "memory": "1Pi", "pods": "100M" } },
            });
            cache.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        }
        let profile = Profile::default_plugins("default-scheduler");
        let template: Pod = serde_json::from_value(json!({
            "metadata": { "namespace": "default" },
            "spec": { "containers": [{ "name": "main", "image": "a", "resources": {
                "requests": { "cpu": "1m", "memory": "1Mi" },
            } }] },
        }))
        .unwrap();
        let (mut count, mut start) = (0_u32, 0);
        let began = Instant::now();
        while began.elapsed() < TIME {
            let mut pod = template.clone();
            pod.metadata.name = Some(format!("pod-{count}"));
            pod.metadata.uid = Some(count.to_string());
            let pod = Arc::new(PodInfo::new(Arc::new(pod)));
            match cycle(cache.snapshot(), &profile, &pod, start) {
                Decision::Bind { node, evaluated } => {
                    start += evaluated;
                    cache.assume(pod, &node);
                }
                Decision::Unschedulable(diagnosis) => panic!("{diagnosis}"),
            }
            count += 1;
        }
        let per_second = f64::from(count) / began.elapsed().as_secs_f64();
        println!(
            "{nodes:>5} nodes: {per_second:.0} pods/s, {:.2} of the budget at 5,000 nodes",
            per_second / BUDGET_PODS_PER_SECOND
        );
    }
}

//! Nodes whose CPU and memory are used in like shares are better.

use crate::framework::{MAX_NODE_SCORE, Score};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// The distance between the used shares of CPU and memory.
#[derive(Debug)]
pub struct NodeResourcesBalancedAllocation;

impl Score for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn is_concerned(&self, pod: &PodInfo) -> bool {
        // A pod that asks for nothing changes no balance.
        pod.requests.cpu_millicores > 0 || pod.requests.memory_bytes > 0
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _snapshot: &Snapshot) -> i64 {
        let cpu = used_share(
            node.requested.cpu_millicores + pod.requests.cpu_millicores,
            node.allocatable.cpu_millicores,
        );
        let memory = used_share(
            node.requested.memory_bytes + pod.requests.memory_bytes,
            node.allocatable.memory_bytes,
        );
        // The standard deviation of two numbers is half their distance.
        MAX_NODE_SCORE - (cpu - memory).abs() * MAX_NODE_SCORE / (2 * WHOLE)
    }
}

/// Shares are counted in millionths.
const WHOLE: i64 = 1_000_000;

fn used_share(used: i64, all: i64) -> i64 {
    if all <= 0 || used >= all {
        return WHOLE;
    }
    i64::try_from(i128::from(used) * i128::from(WHOLE) / i128::from(all)).unwrap_or(WHOLE)
}

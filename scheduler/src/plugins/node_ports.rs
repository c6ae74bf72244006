//! Ports of the node that pods want for themselves.

use std::borrow::Cow;

use crate::framework::{ClusterEvent, Filter, Verdict};
use crate::host_ports::HostPort;
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// `hostPort` of containers.
#[derive(Debug)]
pub struct NodePorts;

fn conflict(wanted: &[HostPort], used: &[HostPort]) -> bool {
    wanted.iter().any(|wanted| used.iter().any(|used| wanted.conflicts(used)))
}

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _cluster: &Snapshot) -> Verdict {
        if conflict(&pod.host_ports, &node.used_ports) {
            let reason = "node(s) didn't have free ports for the requested pod ports";
            Verdict::Unschedulable(vec![Cow::Borrowed(reason)])
        } else {
            Verdict::Feasible
        }
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::NodeUpdated(_) | ClusterEvent::VolumesChanged => false,
            ClusterEvent::AssignedPodGone(gone) => conflict(&pod.host_ports, &gone.host_ports),
        }
    }
}

//! Pods with gates wait until these are taken away.

use crate::framework::PreEnqueue;
use crate::pod_info::PodInfo;

/// `spec.schedulingGates`.
#[derive(Debug)]
pub struct SchedulingGates;

impl PreEnqueue for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn is_admitted(&self, pod: &PodInfo) -> bool {
        pod.gates().is_empty()
    }
}

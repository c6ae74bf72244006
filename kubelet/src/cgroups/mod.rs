//! The cgroups of pods: one for each, below its class of service, so that a pod as a whole has its share and its limit.
//!
//! Called by the pods' workers and the collector of what is left behind. Containers' own cgroups, below, are the
//! runtime's. Works on cgroup v1, on v2, and on a mix of both (v1 controllers beside an empty v2 hierarchy).
//!
//! Source: Kubernetes' `pkg/kubelet/cm` with the driver `cgroupfs`.

mod hierarchy;
mod settings;
mod tree;

pub use hierarchy::{Hierarchy, Version, hierarchies};
pub use settings::{Settings, cpu_weight, files};
pub use tree::{CgroupError, PodCgroups};

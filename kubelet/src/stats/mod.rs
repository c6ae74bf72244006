//! What the node and its pods use: the summary, and the same as metrics.
//!
//! Called by the node's API. Numbers of pods come from the runtimes (processes and guests alike), those of the node from
//! the kernel; shares of cores are the difference of two looks.

mod cadvisor;
mod collect;
mod disk;
mod exposition;
mod model;
mod node;
mod own;
mod pods;
mod rates;
mod resource;

pub(crate) use cadvisor::{MachineFacts, families as cadvisor_families};
pub(crate) use collect::{Detail, summary};
pub(crate) use exposition::text;
pub use exposition::{Family, Kind, Sample};
pub use model::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, MemoryStats, NetworkStats, NodeStats, PodReference,
    PodStats, ProcessStats, RlimitStats, RuntimeStats, Summary, SwapStats, VolumeStats,
};
pub(crate) use own::families as own_families;
pub(crate) use own::{ProbeCounts, ProbeResult};
pub(crate) use rates::Rates;
pub(crate) use resource::families as resource_families;

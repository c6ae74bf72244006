//! Pods: what they need, what to do next, how they are reported, and the worker that does it.

pub mod admission;
pub mod backoff;
pub mod container_config;
mod dispatch;
pub(crate) use dispatch::mirrored_uid;
pub mod environment;
pub mod expansion;
pub mod field_ref;
pub(crate) mod hooks;
pub mod labels;
pub(crate) mod launch;
pub mod observed;
pub mod plan;
mod report;
pub mod resources;
pub mod service_environment;
pub mod sources;
pub mod status;
pub mod status_patch;
mod stop;
mod terminate;
pub(crate) mod worker;
pub(crate) mod workers;

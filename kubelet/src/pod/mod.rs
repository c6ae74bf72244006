//! Pods: what they need, what to do next, how they are reported, and the worker that does it.

pub mod backoff;
pub mod container_config;
pub mod environment;
pub mod expansion;
pub mod field_ref;
pub mod labels;
pub mod observed;
pub mod plan;
pub mod resources;
pub mod service_environment;
pub mod sources;
pub mod status;
pub mod status_patch;

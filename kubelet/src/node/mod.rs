//! The node as the API sees it: registration, status, Lease.

mod conditions;
mod lease;
mod machine;
mod status;

pub use conditions::{CONTAINER_RUNTIME_READY, Health, conditions};
pub(crate) use lease::renew;
pub use machine::Machine;
pub(crate) use status::{allocatable, labels, report};

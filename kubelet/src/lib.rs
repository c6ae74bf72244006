//! The node agent: pod workers, probes, volumes, images, status and the node API.
//!
//! Called by the binary (or a test) through [`run`]; calls the API server as a client, and the node's runtimes through
//! `wherry-runtimes`.
//!
//! Flow: a pod bound to this node (or a manifest of a static pod) gets a worker. The worker decides with
//! [`pod::plan::compute_pod_actions`] from the definition and what is observed, carries the plan out, and writes the
//! status that [`pod::status::generate_status`] makes of the outcome. Runtimes push events, probes push verdicts,
//! watches push changes of ConfigMaps and Secrets: each only wakes the worker.
//!
//! Invariants: nothing that runs is stopped because the kubelet stops or starts; one worker per pod uid; every buffer
//! holds one entry per object or is bounded; whatever a manifest or a guest says is checked before it is used.

pub mod cgroups;
mod config;
mod error;
mod garbage;
pub mod images;
mod kubelet;
pub mod logs;
mod mixed;
pub mod network;
pub mod node;
mod objects;
mod pleg;
pub mod pod;
pub mod probes;
mod run;
mod runtimes;
mod server;
mod static_pods;
pub mod stats;
pub mod volumes;

pub use config::{
    Config, DEFAULT_MAX_PODS, DEFAULT_PORT, ImageKinds, ImageKindsEntry, RuntimeEntry, RuntimeRole, ServerTls,
};
pub use error::Error;
pub use run::run;
pub use runtimes::RuntimeKind;

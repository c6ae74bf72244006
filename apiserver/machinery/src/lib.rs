//! API machinery: what the Kubernetes API means, without any I/O.
//!
//! Called by every other crate; calls nobody. Pure: no tokio, no sockets, no files, no clock. An object is a
//! [`serde_json::Value`] here, because the API keeps fields that a typed struct would drop; callers that need types decode
//! them with `k8s-openapi`.
//!
//! Invariants: nothing panics on input from a client; every rejection says which field and why, in Kubernetes' words.

pub mod decode;
pub mod encode;
pub mod field;
pub mod metadata;
pub mod names;
pub mod ownership;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;

pub use status::{Reason, Status};

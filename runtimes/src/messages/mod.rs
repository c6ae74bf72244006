//! CRI v1's messages as plain structs.
//!
//! Names and meanings are CRI's (`k8s.io/cri-api/pkg/apis/runtime/v1`), in snake case, without Windows and without
//! fields that CRI has deprecated. Differences, all for the reader's ease: wrapper messages (`Int64Value`) are
//! `Option`, messages that CRI requires are not `Option`, maps are ordered. Timestamps are nanoseconds since the
//! epoch, zero where CRI says "not yet".
#![allow(missing_docs, reason = "the fields are CRI's own and documented there; what differs is said here")]

mod container;
mod image;
mod runtime;
mod sandbox;
mod security;
mod stats;
mod streaming;

pub use container::*;
pub use image::*;
pub use runtime::*;
pub use sandbox::*;
pub use security::*;
pub use stats::*;
pub use streaming::*;

//! CRI over gRPC: any endpoint as a runtime, and any runtime as an endpoint.
//!
//! [`Client`] makes a CRI v1 endpoint (containerd, CRI-O, our own Wasm runtime) a [`wherry_runtimes::RuntimeService`] and
//! [`wherry_runtimes::ImageService`] for the kubelet; [`serve`] puts any such pair behind a Unix socket for a kubelet,
//! `crictl` or `critest`. The only crate that names tonic and the generated messages.
//!
//! Invariants: a call answers with the same error code on both sides of the socket; nothing is cached on the way.

mod client;
mod code;
mod containerd;
mod convert;
mod error;
mod server;
mod socket;

pub use client::Client;
pub use containerd::{ArchiveError, ImportError, Imported, PAUSE_IMAGE};
pub use error::Error;
pub use server::serve;

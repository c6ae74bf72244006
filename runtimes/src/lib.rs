//! The container runtime interface in CRI's vocabulary, a fake, and the suite every runtime passes.
//!
//! The kubelet calls [`RuntimeService`] and [`ImageService`]; the Wasm runtime, the CRI client and
//! [`fake::FakeRuntime`] implement them. Nothing here does I/O of its own except the fake and the [`log`] format.
//!
//! Invariants, for every implementation (held by [`suite`]):
//! - Stopping and removing are idempotent: asking again, or for an id that is gone, is not an error.
//! - Status of an id that is not known is [`Error::NotFound`].
//! - A container goes Created, Running, Exited, one way; starting again is a new container with a higher attempt.
//! - Events are pushed in the order in which things happened to a container. Every event carries the sandbox's and
//!   its containers' status as they were then. A reader that falls behind is told by [`Error::DataLoss`], and lists.

mod error;
pub mod events;
pub mod fake;
pub mod files;
mod filter;
pub mod log;
mod messages;
mod service;
pub mod streaming;
pub mod suite;

pub use error::{Error, Result};
pub use messages::*;
pub use service::{EventStream, ImageService, Runtime, RuntimeService};

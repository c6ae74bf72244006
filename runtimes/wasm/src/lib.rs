//! The WebAssembly runtime, on wasmtime.
//!
//! [`WasmRuntime`] implements the runtime interface of `wherry-runtimes` for guests: core modules of WASI preview 1,
//! components with `wasi:cli/run`, and components with `wasi:http/incoming-handler`, which the host serves with an
//! instance per request. [`ImageStore`] holds the images, for the runtime and for the command line at once.
//! [`privileges`] is how the runtime's process gives up what it does not need. The only crate that names wasmtime.
//!
//! Called by the binary (in its own process, behind CRI) and by tests (in process). Calls nobody but the registry.
//!
//! Invariants:
//! - A guest has what its container was granted and nothing else: arguments, environment, mounts, clocks, random numbers,
//!   its pod's address, and the outbound hosts of its pod. Never the machine's own loopback.
//! - No guest keeps a thread: every guest yields at each epoch. What one guest does (trap, panic in a host call, memory,
//!   endless loop) is not felt by another beyond its fair share of the machine.
//! - An idle HTTP guest holds a listening socket and no instance.
//! - After a restart of the process everything known before is reported, NotReady or Exited, until it is removed.

mod addresses;
mod code;
mod config;
mod error;
mod guest;
pub mod image;
pub mod privileges;
mod runtime;

pub use config::{ClusterDns, Config};
pub use error::Error;
pub use image::ImageStore;
pub use runtime::WasmRuntime;

//! Wherry in one binary: the command line, and what puts the components together.
//!
//! Called by `main` and by the whole-system tests; calls every other crate. Nothing here decides anything about pods,
//! Services or requests: this crate parses flags, makes certificates and clients, starts components and stops them.
//!
//! Invariants: components share nothing but the API; a component that ends is started again by [`supervise`]; two clusters fit
//! in one process.

pub mod cluster;
pub mod command;
pub mod containerd;
pub mod daemon;
pub mod data_dir;
pub mod image_kinds;
pub mod leftovers;
pub mod logging;
pub mod network;
pub mod node;
pub mod supervise;
pub mod version;
pub mod wasm_process;

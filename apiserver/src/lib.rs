//! The Kubernetes API over HTTP, and the only user of the store.
//!
//! Called over HTTP, by clients in other processes, and through an in-process `axum::Router` by the components that run
//! beside it; calls the store. The way of a request: authentication, authorisation (`auth`), then `http` (what is asked,
//! in which form), `admission`, `registry` (the verb), the kind's strategy (`kinds`), the store; the store's change comes back
//! through the `cacher`, from which every read and watch is answered.
//!
//! Invariants: a request is answered only after its change is durable; nothing reads the store but the registry and the
//! cacher; every refusal is a `Status`.

pub mod admission;
pub mod auth;
pub mod cacher;
pub mod codec;
pub mod discovery;
pub mod http;
pub mod identity;
pub mod kinds;
pub mod openapi;
pub mod pki;
pub mod registry;
pub mod server;
pub mod tokens;

pub use server::{ApiServer, Config};

//! Who asks (authentication), whether he may (authorisation), and the kinds by which one asks about that.
//!
//! Called by `server` for every request; reads roles, bindings and pods from the watch caches ([`feed`]).
//!
//! Invariants: credentials that are given and wrong are refused, never treated as absent; what no rule allows is refused.

pub mod admission;
pub mod attributes;
pub mod authenticator;
pub mod authorizer;
pub mod bootstrap;
pub mod feed;
pub mod impersonation;
pub mod node;
mod node_volumes;
pub mod rbac;
pub mod reviews;
pub mod token_file;

pub use attributes::{Attributes, ResourceTarget, Target};
pub use authenticator::{Authenticator, PeerCertificate};
pub use authorizer::{Authorizer, Decision};

//! Field ownership: who set which field of an object, and server-side apply.
//!
//! # Flow
//! A write that is no apply: [`updated`] gives what changed to the writer and takes it from everybody else. An apply:
//! [`check`] the configuration, then [`applied`] merges it over the live object, removes what the manager no longer
//! applies, and tells the conflicts. [`Managed`] reads and writes `metadata.managedFields`.
//!
//! Source: KEP-555; structured-merge-diff v6.

mod check;
mod compare;
mod element;
mod managed;
mod merge;
mod remove;
mod set;
mod shape;
mod update;

pub use check::{Faults, check, field_set};
pub use compare::{Comparison, compare};
pub use element::{Literal, PathElement, path_text};
pub use managed::{Managed, Manager, NotManaged, Operation, Owned};
pub use set::{FieldSet, Malformed};
pub use update::{Conflict, Writer, applied, updated};

#[cfg(test)]
mod tests;

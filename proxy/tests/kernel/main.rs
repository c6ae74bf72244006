//! The kernel's backends, in network namespaces that the tests make themselves and that have no way out. They need root.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod fixture;
mod netns;
mod objects;
mod ports;
mod repair;
mod scale;

//! The whole system, as a user meets it: the real binary, the real kubectl, real guests, real HTTP.
//!
//! Every test starts a cluster of its own: its own data directory, port 0, and its own part of 127.0.0.0/8. With
//! `WHERRY_TEST_NETWORK=routed` each has a machine of its own instead: see `support::Site`.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod alone;
mod clients;
mod etcd;
mod faults;
mod golden;
mod kubectl;
mod names;
mod network;
mod node;
mod rejected;
mod rolling;
mod routed;
mod samples;
mod storage;
mod streams;
mod support;
mod up;

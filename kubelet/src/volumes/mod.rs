//! Volumes of pods, as directories of the node.

pub mod atomic_writer;
pub mod host_path;
pub mod mount;
pub mod payload;
pub mod sub_path;
pub(crate) mod tokens;

//! Volumes of pods, as directories of the node.

pub mod atomic_writer;
pub mod claims;
pub mod host_path;
pub mod local_path;
pub mod mount;
pub mod mount_table;
pub mod ownership;
pub mod payload;
pub mod persistent;
pub(crate) mod size_limits;
pub mod sub_path;
pub mod tmpfs;
pub(crate) mod tokens;
pub mod usage;

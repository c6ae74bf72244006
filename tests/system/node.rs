//! What a node does for its pods: probes, init containers, environment, volumes, images, static pods, logs, deletion.

mod debug;
mod deletion;
mod environment;
mod images;
mod init;
mod logs;
mod probes;
mod static_pods;
mod unsupported;
mod usage;
mod volumes;

//! Streams into a pod: commands, attachment, forwarded ports. The answer of each verb is the URL where they are served.

use serde::{Deserialize, Serialize};

/// A command to run in a container, and which of its streams are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    pub container_id: String,
    pub cmd: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    /// Never with `tty`: a terminal has one output.
    pub stderr: bool,
}

/// Which streams of a container's own process are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachRequest {
    pub container_id: String,
    pub stdin: bool,
    pub tty: bool,
    pub stdout: bool,
    /// Never with `tty`: a terminal has one output.
    pub stderr: bool,
}

/// Ports of a sandbox. Empty: each stream names its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortForwardRequest {
    pub pod_sandbox_id: String,
    pub port: Vec<i32>,
}

//! The Wasm runtime's own process: guests go on while the node is away, and the next node adopts them by the socket.

use std::path::PathBuf;

use wherry_client::Lifecycle;
use wherry_runtime_wasm::privileges;

use crate::daemon::Daemon;

/// How the process is started.
#[derive(Debug, Clone)]
pub struct WasmProcess {
    /// The program: this binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where it serves CRI.
    pub socket: PathBuf,
}

impl WasmProcess {
    /// Run the process, or watch over the one that a former node started, until `lifecycle` ends; then stop it.
    ///
    /// # Errors
    /// The process cannot be started, does not answer, or ended early.
    pub async fn run(self, lifecycle: Lifecycle) -> anyhow::Result<()> {
        let daemon = Daemon {
            name: "the wasm runtime",
            program: self.program,
            arguments: self.arguments,
            path: None,
            log: None,
            socket: self.socket,
            other_uid: Some(privileges::Options::new("", "").uid),
        };
        daemon.run(lifecycle, || async { Ok(()) }, || async {}).await
    }
}

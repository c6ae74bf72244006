//! The node's container runtime: one that is there already, or a containerd of our own.

mod config;
mod own;

use std::path::{Path, PathBuf};

use crate::{data_dir::DataDir, network::Mode};

pub use own::OwnContainerd;

/// The handler of the RuntimeClass that chooses the container runtime, and containerd's own name for runc.
pub const HANDLER: &str = "runc";

/// How long a command waits for a containerd that the node is starting.
const START_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Where a containerd that the machine has anyway answers.
const USUAL_SOCKET: &str = "/run/containerd/containerd.sock";

/// Who runs a node's Linux containers.
#[derive(Debug, Clone)]
pub enum ContainerRuntime {
    /// Nobody: the node runs Wasm pods only.
    None,
    /// A runtime that somebody else keeps, by its CRI endpoint.
    Endpoint(String),
    /// A containerd that this node starts and watches over.
    Own(Box<OwnContainerd>),
    /// The node is to run containers, and nothing is there to do so; the endpoint is where it would answer.
    Missing(String),
}

impl ContainerRuntime {
    /// `endpoint` if it is given. Else, in routed mode: our own containerd if it runs, the machine's if it answers, our own
    /// if the program is there. Loopback mode has no network for containers.
    pub fn choose(endpoint: Option<&str>, data_dir: &DataDir, mode: Mode) -> Self {
        if let Some(endpoint) = endpoint {
            return Self::Endpoint(endpoint.to_owned());
        }
        if mode == Mode::Loopback {
            return Self::None;
        }
        let socket = data_dir.containerd_socket();
        let usual = PathBuf::from(USUAL_SOCKET);
        match (answers(&socket), answers(&usual), own::program("containerd")) {
            (false, true, _) => Self::Endpoint(url(&usual)),
            (true, _, Some(program)) | (false, false, Some(program)) => {
                Self::Own(Box::new(OwnContainerd::new(program, data_dir.clone())))
            }
            (true, _, None) => Self::Endpoint(url(&socket)),
            (false, false, None) => {
                tracing::warn!("there is no containerd on this machine: only Wasm pods will run");
                Self::Missing(url(&socket))
            }
        }
    }

    /// Where it speaks CRI.
    pub fn endpoint(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Endpoint(endpoint) | Self::Missing(endpoint) => Some(endpoint.clone()),
            Self::Own(own) => Some(url(&own.socket())),
        }
    }
}

/// The endpoint of the container runtime that this node uses now, for commands beside it. One that the node is about to
/// start is waited for.
pub async fn endpoint_in_use(data_dir: &DataDir) -> Option<String> {
    let sockets = [data_dir.containerd_socket(), PathBuf::from(USUAL_SOCKET)];
    let started = std::time::Instant::now();
    loop {
        if let Some(socket) = sockets.iter().find(|socket| answers(socket)) {
            return Some(url(socket));
        }
        if !data_dir.containerd_state().is_dir() || started.elapsed() > START_PATIENCE {
            return None;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

fn url(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

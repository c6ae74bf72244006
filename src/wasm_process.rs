//! The Wasm runtime's own process: started by the node, found again by a node that was started anew, and stopped with it.
//!
//! The process leads a session of its own, so that neither a signal to the node's terminal nor the node's death reaches it:
//! guests go on while the node is away, and the next node adopts them by the socket.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use wherry_client::Lifecycle;
use wherry_runtime_wasm::privileges;

/// How long the runtime may take until its socket answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take to stop its guests before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Why the runtime is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("cannot start the wasm runtime")]
    Start(#[source] io::Error),
    /// It ended.
    #[error("the wasm runtime ended: {status}")]
    Ended {
        /// How.
        status: String,
    },
    /// Somebody else made the socket.
    #[error("{} is served by user {uid}, who is neither this user nor the wasm runtime's", socket.display())]
    Foreign {
        /// Where.
        socket: PathBuf,
        /// Who.
        uid: u32,
    },
    /// Its socket does not answer.
    #[error("the wasm runtime does not answer on {} after {} s", socket.display(), START_TIMEOUT.as_secs())]
    Silent {
        /// Where it should answer.
        socket: PathBuf,
    },
}

impl WasmProcess {
    /// Run the process, or watch over the one that a former node started, until `lifecycle` ends; then stop it.
    ///
    /// # Errors
    /// The process cannot be started, does not answer, or ended early.
    pub async fn run(self, lifecycle: Lifecycle) -> Result<(), Error> {
        if let Some(pid) = self.serving()? {
            tracing::info!(
                pid = pid.as_raw(),
                "the wasm runtime of a former run is still there; its guests are kept"
            );
            lifecycle.readiness.set_ready();
            return self.watch_over(pid, &lifecycle).await;
        }
        if let Some(directory) = self.socket.parent() {
            fs::create_dir_all(directory).map_err(Error::Start)?;
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let mut child = tokio::process::Command::from(command).spawn().map_err(Error::Start)?;
        let started = Instant::now();
        while self.serving().inspect_err(|_| drop(child.start_kill()))?.is_none() {
            if let Some(status) = child.try_wait().map_err(Error::Start)? {
                return Err(Error::Ended { status: status.to_string() });
            }
            if started.elapsed() > START_TIMEOUT {
                child.kill().await.map_err(Error::Start)?;
                return Err(Error::Silent { socket: self.socket });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lifecycle.readiness.set_ready();
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(Error::Start)?;
                Err(Error::Ended { status: status.to_string() })
            }
            () = lifecycle.shutdown.cancelled() => {
                if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
                    signal(Pid::from_raw(pid), Signal::SIGTERM);
                }
                if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
                    tracing::warn!("the wasm runtime did not stop in time and is killed");
                    child.kill().await.map_err(Error::Start)?;
                }
                Ok(())
            }
        }
    }

    /// The process behind the socket, if one answers. The kernel says which it is; no file could be as sure.
    fn serving(&self) -> Result<Option<Pid>, Error> {
        let Ok(stream) = UnixStream::connect(&self.socket) else { return Ok(None) };
        let Ok(credentials) = getsockopt(&stream, PeerCredentials) else { return Ok(None) };
        let (own, runtimes) = (nix::unistd::geteuid().as_raw(), privileges::Options::new("", "").uid);
        if !is_trusted(credentials.uid(), own, runtimes) {
            return Err(Error::Foreign { socket: self.socket.clone(), uid: credentials.uid() });
        }
        Ok(Some(Pid::from_raw(credentials.pid())))
    }

    async fn watch_over(&self, pid: Pid, lifecycle: &Lifecycle) -> Result<(), Error> {
        let gone = || Error::Ended { status: "it is gone".to_owned() };
        let Some(raw) = rustix::process::Pid::from_raw(pid.as_raw()) else { return Err(gone()) };
        let descriptor = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
            Ok(descriptor) => watched(descriptor).map_err(Error::Start)?,
            Err(_) => return Err(gone()),
        };
        tokio::select! {
            ended = descriptor.readable() => {
                let _readable = ended.map_err(Error::Start)?;
                return Err(gone());
            }
            () = lifecycle.shutdown.cancelled() => signal_held(&descriptor, rustix::process::Signal::TERM),
        }
        if tokio::time::timeout(STOP_TIMEOUT, descriptor.readable()).await.is_err() {
            tracing::warn!("the wasm runtime did not stop in time and is killed");
            signal_held(&descriptor, rustix::process::Signal::KILL);
        }
        Ok(())
    }
}

/// The descriptor as something to wait for.
#[expect(
    deprecated,
    reason = "an OwnedFd has one descriptor for life, which is what the safe constructor cannot know of all types"
)]
fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

/// Whether a process of this user may be the runtime: we started it, as ourselves or (being root) as the runtime's user.
fn is_trusted(uid: u32, own: u32, runtimes: u32) -> bool {
    uid == own || (own == 0 && uid == runtimes)
}

/// Signals the process that is watched over, and no other that has its number by now.
fn signal_held(process: &AsyncFd<OwnedFd>, which: rustix::process::Signal) {
    if let Err(error) = rustix::process::pidfd_send_signal(process.get_ref(), which) {
        tracing::debug!(%error, ?which, "cannot signal the wasm runtime");
    }
}

fn signal(pid: Pid, which: Signal) {
    if let Err(error) = kill(pid, which) {
        tracing::debug!(%error, %which, "cannot signal the wasm runtime");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_another_user_serves_is_not_the_runtimes() {
        for (uid, own, trusted) in [
            (0, 0, true),
            (65532, 0, true),
            (1000, 0, false),
            (1000, 1000, true),
            (1001, 1000, false),
            (0, 1000, false),
            (65532, 1000, false),
        ] {
            assert_eq!(is_trusted(uid, own, 65532), trusted, "{uid} seen by {own}");
        }
        let temporary = tempfile::tempdir().unwrap();
        let socket = temporary.path().join("cri.sock");
        let process = WasmProcess { program: PathBuf::new(), arguments: Vec::new(), socket: socket.clone() };
        assert!(process.serving().unwrap().is_none());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(process.serving().unwrap(), Some(Pid::this()));
    }
}

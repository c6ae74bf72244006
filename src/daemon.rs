//! A process that outlives the node: started by it, found again by a node that was started anew, and stopped with it.
//!
//! It leads a process group of its own, so that neither a signal to the node's terminal nor the node's death reaches it; the
//! next node finds it by its socket. The kernel says which process that is: no file could be as sure.

use std::{
    fs::{self, File},
    future::Future,
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use wherry_client::Lifecycle;

/// How long a process may take until its socket answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a process may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// What it is called in messages.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its search path for programs, if not ours.
    pub path: Option<std::ffi::OsString>,
    /// Where its words go; `None` sends them where ours go.
    pub log: Option<PathBuf>,
    /// Where it answers.
    pub socket: PathBuf,
    /// The user that it may run as beside ourselves, where we are root.
    pub other_uid: Option<u32>,
}

/// Why a process is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("cannot start {name}")]
    Start {
        /// What.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended.
    #[error("{name} ended: {status}")]
    Ended {
        /// What.
        name: &'static str,
        /// How.
        status: String,
    },
    /// Somebody else made the socket.
    #[error("{} is served by user {uid}, who is neither this user nor {name}'s", socket.display())]
    Foreign {
        /// What was expected there.
        name: &'static str,
        /// Where.
        socket: PathBuf,
        /// Who.
        uid: u32,
    },
    /// Its socket does not answer.
    #[error("{name} does not answer on {} after {} s", socket.display(), START_TIMEOUT.as_secs())]
    Silent {
        /// What.
        name: &'static str,
        /// Where it should answer.
        socket: PathBuf,
    },
}

impl Daemon {
    /// Run the process, or watch over the one that a former node started, until `lifecycle` ends; then stop it.
    ///
    /// Flow: once it answers, `prepare` runs, and the component is ready. Before it is stopped, `wind_down` runs.
    ///
    /// # Errors
    /// The process cannot be started, does not answer, cannot be prepared, or ended early.
    pub async fn run<P, W>(
        self,
        lifecycle: Lifecycle,
        prepare: impl FnOnce() -> P,
        wind_down: impl FnOnce() -> W,
    ) -> anyhow::Result<()>
    where
        P: Future<Output = anyhow::Result<()>>,
        W: Future<Output = ()>,
    {
        let pid = match self.serving()? {
            Some(pid) => {
                tracing::info!(
                    pid = pid.as_raw(),
                    name = self.name,
                    "the process of a former run is still there; what runs in it is kept"
                );
                pid
            }
            None => self.start().await?,
        };
        let process = self.watched(pid)?;
        tokio::select! {
            prepared = prepare() => prepared?,
            ended = process.readable() => {
                let _readable = ended?;
                return Err(self.ended("before it was ready").into());
            }
            () = lifecycle.shutdown.cancelled() => {}
        }
        if !lifecycle.shutdown.is_cancelled() {
            lifecycle.readiness.set_ready();
        }
        tokio::select! {
            ended = process.readable() => {
                let _readable = ended?;
                return Err(self.ended("it is gone").into());
            }
            () = lifecycle.shutdown.cancelled() => {}
        }
        wind_down().await;
        self.signal(&process, Signal::TERM);
        if tokio::time::timeout(STOP_TIMEOUT, process.readable()).await.is_err() {
            tracing::warn!(name = self.name, "did not stop in time and is killed");
            self.signal(&process, Signal::KILL);
        }
        Ok(())
    }

    async fn start(&self) -> Result<Pid, Error> {
        let failed = |source| Error::Start { name: self.name, source };
        if let Some(directory) = self.socket.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        if let Some(log) = &self.log {
            let log = File::create(log).map_err(failed)?;
            command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        }
        let mut child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let started = Instant::now();
        loop {
            match self.serving() {
                Ok(Some(pid)) => {
                    // Whoever serves is watched by number; the child is still ours to collect.
                    tokio::spawn(async move { child.wait().await });
                    return Ok(pid);
                }
                Ok(None) => {}
                Err(error) => {
                    let _ = child.start_kill();
                    return Err(error);
                }
            }
            if let Some(status) = child.try_wait().map_err(failed)? {
                let words = self.log.as_ref().map(last_words).unwrap_or_default();
                return Err(Error::Ended { name: self.name, status: format!("{status}{words}") });
            }
            if started.elapsed() > START_TIMEOUT {
                child.kill().await.map_err(failed)?;
                return Err(Error::Silent { name: self.name, socket: self.socket.clone() });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process behind the socket, if one answers.
    pub fn serving(&self) -> Result<Option<Pid>, Error> {
        let Ok(stream) = UnixStream::connect(&self.socket) else { return Ok(None) };
        let Ok(credentials) = getsockopt(&stream, PeerCredentials) else { return Ok(None) };
        let own = nix::unistd::geteuid().as_raw();
        if !is_trusted(credentials.uid(), own, self.other_uid) {
            let socket = self.socket.clone();
            return Err(Error::Foreign { name: self.name, socket, uid: credentials.uid() });
        }
        Ok(Some(Pid::from_raw(credentials.pid())))
    }

    #[expect(
        deprecated,
        reason = "an OwnedFd has one descriptor for life, which is what the safe constructor cannot know of all types"
    )]
    fn watched(&self, pid: Pid) -> anyhow::Result<AsyncFd<OwnedFd>> {
        let gone = || self.ended("it is gone");
        let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(gone)?;
        let descriptor = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|_| gone())?;
        Ok(AsyncFd::new(descriptor)?)
    }

    fn ended(&self, status: &str) -> Error {
        Error::Ended { name: self.name, status: status.to_owned() }
    }

    /// Signals the process that is watched over, and no other that has its number by now.
    fn signal(&self, process: &AsyncFd<OwnedFd>, which: Signal) {
        if let Err(error) = pidfd_send_signal(process.get_ref(), which) {
            tracing::debug!(%error, ?which, name = self.name, "cannot be signalled");
        }
    }
}

/// The end of a log, for the message of a process that did not start.
fn last_words(log: &PathBuf) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().map(|line| format!("; {line}")).collect()
}

/// Whether a process of this user may be ours: we started it, as ourselves or (being root) as its own user.
fn is_trusted(uid: u32, own: u32, other: Option<u32>) -> bool {
    uid == own || (own == 0 && Some(uid) == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_another_user_serves_is_not_ours() {
        for (uid, own, trusted) in [
            (0, 0, true),
            (65532, 0, true),
            (1000, 0, false),
            (1000, 1000, true),
            (1001, 1000, false),
            (0, 1000, false),
            (65532, 1000, false),
        ] {
            assert_eq!(is_trusted(uid, own, Some(65532)), trusted, "{uid} seen by {own}");
        }
        assert!(!is_trusted(65532, 0, None));
        let temporary = tempfile::tempdir().unwrap();
        let socket = temporary.path().join("cri.sock");
        let process = Daemon {
            name: "x",
            program: PathBuf::new(),
            arguments: Vec::new(),
            path: None,
            log: None,
            socket: socket.clone(),
            other_uid: None,
        };
        assert!(process.serving().unwrap().is_none());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(process.serving().unwrap(), Some(Pid::this()));
    }
}

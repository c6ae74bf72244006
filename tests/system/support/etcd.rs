//! An etcd of one member, as a child process.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{cluster::free_port, eventually};

/// A running etcd; ended when dropped.
pub(crate) struct TestEtcd {
    directory: TempDir,
    process: Child,
    client_port: u16,
    peer_port: u16,
}

impl TestEtcd {
    /// An etcd that is empty and answers.
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("wherry-test-etcd-").tempdir().unwrap();
        let (client_port, peer_port) = (free_port(), free_port());
        let process = spawn(&directory, client_port, peer_port);
        let mut etcd = Self { directory, process, client_port, peer_port };
        etcd.wait_ready();
        etcd
    }

    /// What `--store` is told.
    pub(crate) fn store(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.client_port)
    }

    /// End it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The same member again, on what it had written.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.directory, self.client_port, self.peer_port);
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        eventually("etcd's port", || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("etcd ended with {status}");
            }
            TcpStream::connect(("127.0.0.1", self.client_port)).map(drop).map_err(|error| error.to_string())
        });
    }
}

impl Drop for TestEtcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(directory: &TempDir, client_port: u16, peer_port: u16) -> Child {
    let client = format!("http://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    Command::new("etcd")
        .args(["--name", "test", "--log-level", "error", "--data-dir"])
        .arg(directory.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed: Debian's package etcd-server")
}

//! etcd as a child process on loopback, ended with the test.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running etcd with a directory of its own.
pub(super) struct EtcdProcess {
    directory: tempfile::TempDir,
    client_port: u16,
    peer_port: u16,
    scheme: &'static str,
    child: Child,
}

/// An authority, with certificates for a server and a client.
pub(super) struct Tls {
    pub(super) ca_pem: String,
    server_pem: String,
    server_key_pem: String,
    pub(super) client_pem: String,
    pub(super) client_key_pem: String,
}

impl Tls {
    pub(super) fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let signed = |usages: Vec<ExtendedKeyUsagePurpose>| {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            leaf.extended_key_usages = usages;
            (leaf.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        // etcd's own gateway uses the server's certificate as a client.
        let (server_pem, server_key_pem) =
            signed(vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
        let (client_pem, client_key_pem) = signed(vec![ExtendedKeyUsagePurpose::ClientAuth]);
        Self { ca_pem, server_pem, server_key_pem, client_pem, client_key_pem }
    }
}

impl EtcdProcess {
    pub(super) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "http")
    }

    pub(super) fn start_with_tls(tls: &Tls) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, pem) in
            [("ca.crt", &tls.ca_pem), ("server.crt", &tls.server_pem), ("server.key", &tls.server_key_pem)]
        {
            std::fs::write(directory.path().join(name), pem).unwrap();
        }
        Self::start_in(directory, "https")
    }

    fn start_in(directory: tempfile::TempDir, scheme: &'static str) -> Self {
        // Another process may take a port between our look and etcd's: try again with others.
        for _ in 0..5 {
            let [client_port, peer_port] = free_ports();
            let mut child = spawn(directory.path(), scheme, client_port, peer_port);
            if is_up(&mut child, client_port) {
                return Self { directory, client_port, peer_port, scheme, child };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("etcd did not start");
    }

    pub(super) fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same ports, with what was kept.
    pub(super) fn start_again(&mut self) {
        self.child = spawn(self.directory.path(), self.scheme, self.client_port, self.peer_port);
        assert!(is_up(&mut self.child, self.client_port), "etcd starts again");
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn spawn(directory: &Path, scheme: &str, client_port: u16, peer_port: u16) -> Child {
    let client = format!("{scheme}://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new("etcd");
    command
        .args(["--name", "one", "--data-dir"])
        .arg(directory.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .args(["--heartbeat-interval", "50", "--election-timeout", "250", "--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if scheme == "https" {
        for (option, name) in
            [("--cert-file", "server.crt"), ("--key-file", "server.key"), ("--trusted-ca-file", "ca.crt")]
        {
            command.arg(option).arg(directory.join(name));
        }
        command.arg("--client-cert-auth");
    }
    command.spawn().unwrap_or_else(|error| {
        panic!("etcd could not be started: {error}. It is in Debian's package etcd-server (apt-get install etcd-server)")
    })
}

/// etcd opens its port for clients once it is a member.
fn is_up(child: &mut Child, port: u16) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

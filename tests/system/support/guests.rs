//! Guests that do what they are told, and servers of a test's own at addresses that only this machine has.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{TestCluster, eventually};

/// A C program: its first argument says what it does.
pub(crate) const COMMAND: &str = "test/command:v1";

/// An HTTP function: the path of a request says what it does.
pub(crate) const HTTP: &str = "test/http:v1";

/// The file of one of the guests.
pub(crate) fn guest_file(image: &str) -> PathBuf {
    let name = if image == HTTP { "http-guest.wasm" } else { "guest.wasm" };
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/runtimes/wasm/testdata")).join(name)
}

impl TestCluster {
    /// Load both guests under their names.
    pub(crate) fn load_guests(&self) {
        for image in [COMMAND, HTTP] {
            let file = guest_file(image);
            let output = self.wherry(&["image", "load", file.to_str().unwrap(), "--name", image]);
            assert_eq!(output.code, 0, "{output:?}");
        }
    }

    /// Apply a Pod of which the `spec` is given, with `runtimeClassName` and no grace unless it says so.
    pub(crate) fn pod(&self, name: &str, spec: &str) {
        self.pod_with(name, "{}", spec);
    }

    /// The same with more `metadata` than the name.
    pub(crate) fn pod_with(&self, name: &str, metadata: &str, spec: &str) {
        let mut metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
        let mut spec: serde_json::Value =
            serde_json::from_str(spec).unwrap_or_else(|error| panic!("{error}: {spec}"));
        metadata["name"] = name.into();
        spec["runtimeClassName"] = "wasmtime".into();
        if spec["terminationGracePeriodSeconds"].is_null() {
            spec["terminationGracePeriodSeconds"] = 0.into();
        }
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        self.apply(&pod.to_string());
    }

    /// The column STATUS of `kubectl get pods`.
    pub(crate) fn pod_status(&self, name: &str) -> String {
        let row = self.kubectl(&["get", "pod", name, "--no-headers"]).stdout;
        row.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }

    /// Wait until the column STATUS is `status`.
    pub(crate) fn wait_status(&self, name: &str, status: &str) {
        eventually(&format!("status {status} of pod {name}"), || {
            let row = self.kubectl(&["get", "pod", name, "--no-headers"]);
            if row.stdout.split_whitespace().nth(2) == Some(status) {
                return Ok(());
            }
            Err(format!("{row:?}"))
        });
    }

    /// Wait until the pod is ready.
    pub(crate) fn wait_ready_pod(&self, name: &str) {
        self.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    }

    /// The pod's address with a port; there is one as soon as the sandbox is made.
    pub(crate) fn pod_address(&self, name: &str, port: u16) -> SocketAddr {
        let ip = eventually("the pod's address", || {
            let ip = self.ok(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]);
            ip.parse().map_err(|_| format!("pod {name} has no address: {ip:?}"))
        });
        SocketAddr::new(ip, port)
    }

    /// A field of a pod.
    pub(crate) fn pod_field(&self, name: &str, jsonpath: &str) -> String {
        self.ok(&["get", "pod", name, "-o", &format!("jsonpath={{{jsonpath}}}")])
    }

    /// The events of a pod as `type reason message`, one a line.
    pub(crate) fn pod_events(&self, name: &str) -> String {
        let columns = "jsonpath={range .items[*]}{.type} {.reason} {.message}{\"\\n\"}{end}";
        let selector = format!("involvedObject.name={name}");
        self.ok(&["get", "events", "--field-selector", &selector, "-o", columns])
    }

    /// Wait until each of `lines` is the beginning of one of the pod's events.
    pub(crate) fn wait_events(&self, name: &str, lines: &[&str]) {
        eventually("the pod's events", || {
            let events = self.pod_events(name);
            match lines.iter().find(|line| !events.lines().any(|event| event.starts_with(**line))) {
                None => Ok(()),
                Some(missing) => Err(format!("{missing:?} is not among\n{events}")),
            }
        });
    }
}

/// An HTTP server of the test's own; ends when dropped.
pub(crate) struct Answering {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    stopped: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Answering {
    /// Listen on `address` and answer every request with `status`, which may be changed.
    pub(crate) fn at(address: SocketAddr, status: u16) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (status, stopped) = (Arc::new(AtomicU16::new(status)), Arc::new(AtomicBool::new(false)));
        let (answer, end) = (Arc::clone(&status), Arc::clone(&stopped));
        let task = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let _ = answer_once(stream, answer.load(Ordering::Relaxed));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { address, status, stopped, task: Some(task) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answer so from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

fn answer_once(mut stream: std::net::TcpStream, status: u16) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 4096];
    if stream.read(&mut request)? > 0 {
        write!(stream, "HTTP/1.1 {status} Said\r\ncontent-length: 5\r\nconnection: close\r\n\r\nsaid\n")?;
    }
    Ok(())
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            let _ = task.join();
        }
    }
}

/// A UDP server that sends everything back with its own address in front; ends when dropped.
pub(crate) struct Echoing {
    stopped: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Echoing {
    /// Listen on `address`.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stopped);
        let task = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    let answer = [format!("{address}: ").as_bytes(), &buffer[..length]].concat();
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { stopped, task: Some(task) }
    }
}

impl Drop for Echoing {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            let _ = task.join();
        }
    }
}

//! What a cluster costs: start-up, idle memory and CPU, apply to the first answer, pods per second, memory per pod, requests
//! per second. Prints each figure beside its budget; `cargo bench --bench cluster`, or `make bench`.
//!
//! Everything runs on this machine's loopback addresses; loops are bounded. With `wasmtime` on the PATH, requests per second
//! are measured beside `wasmtime serve` in the same run, by turns.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that meets an error has no result"
)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Service},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

const PODS: i32 = 500;
const LATENCY_ROUNDS: usize = 30;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

struct Cluster {
    process: Child,
    directory: tempfile::TempDir,
}

impl Cluster {
    fn spawn(directory: tempfile::TempDir) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_wherry"))
            .arg("up")
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--kubelet-port",
                "0",
                "--node-name",
                "bench",
                "--log",
                "error",
            ])
            .args(["--pod-cidr", "127.230.0.0/17", "--service-cidr", "127.230.128.0/17"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, directory }
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A client, as soon as the API answers and the node is ready.
    async fn ready(&self) -> Client {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(client) = self.try_ready().await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the cluster is not ready");
    }

    async fn try_ready(&self) -> Option<Client> {
        let client =
            wherry_client::connect::from_kubeconfig(&self.data_dir().join("kubeconfig.yaml")).await.ok()?;
        let ready = http::Request::get("/readyz").body(Vec::new()).ok()?;
        client.request_text(ready).await.ok()?;
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.ok()?;
        let conditions = nodes.items.first()?.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
            .then_some(client)
    }

    /// Both processes: the node and the Wasm runtime.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.process.id()];
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.process.id()))
            .unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        // The runtime may have been spawned by another thread than the first.
        for entry in std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().flatten() {
            let children = std::fs::read_to_string(entry.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    fn memory_kib(&self) -> u64 {
        self.processes().into_iter().map(|pid| proc_field(pid, "smaps_rollup", "Pss:")).sum()
    }

    fn cpu_ticks(&self) -> u64 {
        let ticks = |pid: u32| -> Option<u64> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        self.processes().into_iter().filter_map(ticks).sum()
    }

    fn stop(mut self) -> tempfile::TempDir {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap();
        self.directory
    }
}

fn proc_field(pid: u32, file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn row(what: &str, measured: &str, budget: &str) {
    println!("| {what:<58} | {measured:>24} | {budget:<18} |");
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

#[allow(clippy::cast_precision_loss, reason = "three digits are printed")]
async fn run() {
    row("what", "measured", "budget");
    row("---", "---", "---");
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let started = Instant::now();
    let cluster = Cluster::spawn(directory);
    cluster.ready().await;
    row("first start to ready and node Ready", &format!("{} ms", started.elapsed().as_millis()), "< 1 s");
    let directory = cluster.stop();
    let started = Instant::now();
    let cluster = Cluster::spawn(directory);
    let client = cluster.ready().await;
    row("later start to ready and node Ready", &format!("{} ms", started.elapsed().as_millis()), "< 1 s");

    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle_kib = cluster.memory_kib();
    let ticks = cluster.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let busy = (cluster.cpu_ticks() - ticks) as f64 / 100.0 / 20.0 * 100.0;
    row(
        "idle memory (PSS), no pods, both processes",
        &format!("{:.1} MiB", idle_kib as f64 / 1024.0),
        "< 60 MB",
    );
    row("idle CPU, of one core", &format!("{busy:.2} %"), "< 1 %");

    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/hello-http/hello-http.wasm");
    let loaded = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["image", "load", "--name", "bench/hello:v1"])
        .arg(&guest)
        .arg("--data-dir")
        .arg(cluster.data_dir())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(loaded.success());
    latency(&client).await;
    let address = density(&client, &cluster, idle_kib).await;
    throughput(address, &guest).await;
    drop(cluster.stop());
}

fn deployment(name: &str, replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "runtimeClassName": "wasmtime",
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "c", "image": "bench/hello:v1", "imagePullPolicy": "IfNotPresent",
                                    "ports": [{"containerPort": 8080}]}],
                },
            },
        },
    }))
    .unwrap()
}

/// One request; true if it was answered with 200.
fn is_answered(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    let mut answer = [0; 12];
    stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

/// From the POST of a Deployment to the first answer at its Service's address.
async fn latency(client: &Client) {
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    let mut took = Vec::new();
    for round in 0..=LATENCY_ROUNDS {
        let name = format!("latency-{round}");
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 8080}]},
        }))
        .unwrap();
        let service = services.create(&PostParams::default(), &service).await.unwrap();
        let ip = service.spec.unwrap().cluster_ip.unwrap();
        let address = format!("{ip}:8080").parse().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        deployments.create(&PostParams::default(), &deployment(&name, 1)).await.unwrap();
        let answered = tokio::task::spawn_blocking(move || {
            while started.elapsed() < PATIENCE {
                if is_answered(address) {
                    return;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            panic!("no answer");
        });
        answered.await.unwrap();
        // The first round compiles.
        if round > 0 {
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        deployments.delete(&name, &DeleteParams::background()).await.unwrap();
        services.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    let took = sorted(took);
    let text = format!("{:.1} / {:.1} ms", took[took.len() / 2], took[took.len() * 95 / 100]);
    row("Deployment POST to first 200 through its Service, p50/p95", &text, "p50 < 10 ms");
}

/// Pods per second, and what each costs. Returns the address of one of them.
#[allow(clippy::cast_precision_loss, reason = "three digits are printed")]
async fn density(client: &Client, cluster: &Cluster, idle_kib: u64) -> SocketAddr {
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let started = Instant::now();
    deployments.create(&PostParams::default(), &deployment("dense", PODS)).await.unwrap();
    loop {
        let status = deployments.get("dense").await.unwrap().status.unwrap_or_default();
        if status.ready_replicas == Some(PODS) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    row(
        &format!("{PODS} pods, POST to all Ready"),
        &format!("{:.0} pods/s", f64::from(PODS) / seconds),
        ">= 500/s",
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let all_kib = cluster.memory_kib().saturating_sub(idle_kib);
    let runtime_kib: u64 =
        cluster.processes().into_iter().skip(1).map(|pid| proc_field(pid, "smaps_rollup", "Pss:")).sum();
    row("memory per pod, whole cluster", &format!("{:.0} KiB", all_kib as f64 / f64::from(PODS)), "");
    row(
        "memory per pod, Wasm runtime alone (its base included)",
        &format!("{:.0} KiB", runtime_kib as f64 / f64::from(PODS)),
        "< 100 KB",
    );
    let one = pods.list(&ListParams::default().labels("app=dense").limit(1)).await.unwrap().items.remove(0);
    format!("{}:8080", one.status.unwrap().pod_ip.unwrap()).parse().unwrap()
}

/// Requests per second of one pod, beside `wasmtime serve` where it is installed.
async fn throughput(address: SocketAddr, guest: &Path) {
    let peer_address: SocketAddr = "127.230.255.1:8080".parse().unwrap();
    let peer = Command::new("wasmtime")
        .args(["serve", "-S", "cli", "--addr", &peer_address.to_string()])
        .arg(guest)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    if peer.is_ok() {
        let started = Instant::now();
        while !is_answered(peer_address) && started.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for _ in 0..3 {
        ours.extend(hey(address));
        if peer.is_ok() {
            theirs.extend(hey(peer_address));
        }
    }
    if let Ok(mut peer) = peer {
        peer.kill().unwrap();
        peer.wait().unwrap();
    }
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    match (ours.get(ours.len() / 2), theirs.get(theirs.len() / 2)) {
        (None, _) => println!("requests per second: not measured, `hey` is not installed"),
        (Some(ours), None) => {
            row("requests per second, one pod (no wasmtime to compare)", &format!("{ours:.0}/s"), "")
        }
        (Some(ours), Some(theirs)) => {
            let text = format!("{ours:.0}/s, {:.2} x", ours / theirs);
            row(&format!("requests per second, beside wasmtime serve ({theirs:.0}/s)"), &text, ">= 0.9 x");
        }
    }
}

fn hey(address: SocketAddr) -> Option<f64> {
    let url = format!("http://{address}/");
    let output = Command::new("hey").args(["-z", "4s", "-c", "32", &url]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.trim_start().starts_with("Requests/sec:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

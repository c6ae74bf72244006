//! What guests cost: pods started per second, memory per idle pod, requests per second.
//!
//! Prints figures and asserts none. `cargo bench -p wherry-runtime-wasm`; with a path in `WASMTIME`, the same requests
//! also go to `wasmtime serve`, whose figure is the one to compare with.

#![allow(clippy::print_stdout, reason = "printing figures is what a benchmark is for")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use wherry_runtime_wasm::{Config, WasmRuntime};
use wherry_runtimes::{
    ContainerConfig, ContainerMetadata, ImageSpec, PodSandboxConfig, PodSandboxMetadata, RuntimeService,
};

const PODS: u32 = 1000;
const CLIENTS: usize = 16;
const DURATION: Duration = Duration::from_secs(5);

fn guest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/http-guest.wasm")
}

/// Resident bytes of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

async fn start_pod(runtime: &WasmRuntime, number: u32) -> Result<String, wherry_runtimes::Error> {
    let config = PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: format!("pod-{number}"),
            uid: format!("{number}"),
            namespace: "bench".to_owned(),
            attempt: 0,
        },
        ..Default::default()
    };
    let sandbox = runtime.run_pod_sandbox(&config, "").await?;
    let container = ContainerConfig {
        metadata: ContainerMetadata { name: "main".to_owned(), attempt: 0 },
        image: ImageSpec { image: "http-guest".to_owned(), ..Default::default() },
        ..Default::default()
    };
    let id = runtime.create_container(&sandbox, &container, &config).await?;
    runtime.start_container(&id).await?;
    let status = runtime.pod_sandbox_status(&sandbox).await?.status;
    Ok(status.network.map(|network| network.ip).unwrap_or_default())
}

async fn requests_per_second(address: &str) -> f64 {
    let answered = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (answered, address) = (Arc::clone(&answered), address.to_owned());
        clients.spawn(async move {
            let Ok(stream) = TcpStream::connect(&address).await else { return };
            let _ = stream.set_nodelay(true);
            let Ok((mut sender, connection)) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
            else {
                return;
            };
            let driver = tokio::spawn(connection);
            while began.elapsed() < DURATION {
                let Ok(request) = Request::get("/").header("host", "bench").body(Empty::<Bytes>::new())
                else {
                    break;
                };
                let Ok(response) = sender.send_request(request).await else { break };
                if response.status() != 200 || response.into_body().collect().await.is_err() {
                    break;
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
            driver.abort();
        });
    }
    clients.join_all().await;
    answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

/// The peer, on a port of its own.
async fn peer() -> Option<f64> {
    let program = std::env::var_os("WASMTIME")?;
    let address = "127.0.0.1:18089";
    let mut process = tokio::process::Command::new(program)
        .args(["serve", "-Scli", "--addr", address])
        .arg(guest())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    for _ in 0..200 {
        if TcpStream::connect(address).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    requests_per_second(address).await;
    let figure = requests_per_second(address).await;
    let _ = process.kill().await;
    Some(figure)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let config = Config { pod_cidr: Some("127.72.0.0/16".parse()?), ..Config::new(dir.path()) };
    let runtime = WasmRuntime::start(config).await?;
    runtime.images().load(&guest(), Some("http-guest"))?;
    let began = Instant::now();
    let ip = start_pod(&runtime, 0).await?;
    println!("first pod, compiling the guest: {:?}", began.elapsed());
    let address = format!("{ip}:8080");
    requests_per_second(&address).await;
    let (before, began) = (resident_bytes(), Instant::now());
    for number in 1..=PODS {
        start_pod(&runtime, number).await?;
    }
    let elapsed = began.elapsed();
    println!(
        "pods started one after the other: {:.0}/s, {:?} each",
        f64::from(PODS) / elapsed.as_secs_f64(),
        elapsed / PODS
    );
    println!("memory per idle pod: {} KiB", (resident_bytes() - before) / u64::from(PODS) / 1024);
    let began = Instant::now();
    let listed = runtime.list_pod_sandbox(&Default::default()).await?.len();
    println!("listing {listed} sandboxes: {:?}", began.elapsed());
    let figure = requests_per_second(&address).await;
    println!("requests, an instance each: {figure:.0}/s");
    if let Some(peer) = peer().await {
        println!("wasmtime serve: {peer:.0}/s, so {:.0} %", 100.0 * figure / peer);
    }
    runtime.stop().await;
    Ok(())
}

//! A runtime in a directory of its own, with the guests of `testdata` loaded.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wherry_runtime_wasm::{Config, WasmRuntime};
use wherry_runtimes::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ImageSpec, LinuxContainerConfig,
    LinuxContainerResources, PodSandboxConfig, PodSandboxMetadata, Result, RuntimeService,
};

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) runtime: WasmRuntime,
    next: AtomicU32,
}

pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    pub(crate) ip: String,
}

pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// An OCI layout whose guest is a file in a tar layer, with this command: how `docker build` would make it.
pub(crate) fn layout(into: &Path, name: &str, wasm: &[u8], cmd: &[&str]) {
    let blobs = into.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let hex = hex::encode(Sha256::digest(bytes));
        std::fs::write(blobs.join(&hex), bytes).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(wasm.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "app/guest.wasm", wasm).unwrap();
    let layer = put(&tar.into_inner().unwrap());
    let config = serde_json::json!({"config": {
        "Entrypoint": ["/app/guest.wasm"], "Cmd": cmd, "Env": ["FROM_IMAGE=yes"], "WorkingDir": "/app"}});
    let config = put(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": config.0, "size": config.1},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "digest": layer.0, "size": layer.1}]});
    let manifest = put(manifest.to_string().as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "digest": manifest.0, "size": manifest.1,
        "annotations": {"org.opencontainers.image.ref.name": name}}]});
    std::fs::write(into.join("index.json"), index.to_string()).unwrap();
    std::fs::write(into.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

pub(crate) fn config(dir: &Path, pod_cidr: &str) -> Config {
    Config {
        pod_cidr: Some(pod_cidr.parse().unwrap()),
        cluster_cidrs: vec![pod_cidr.parse().unwrap()],
        service_cidrs: vec!["127.71.0.0/16".parse().unwrap()],
        max_http_instances: 64,
        request_timeout: Duration::from_secs(3),
        guest_threads: Some(2),
        ..Config::new(dir.join("runtime"))
    }
}

impl Fixture {
    pub(crate) async fn start(pod_cidr: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), pod_cidr);
        Self::start_with(dir, config).await
    }

    pub(crate) async fn start_with(dir: tempfile::TempDir, config: Config) -> Self {
        let runtime = WasmRuntime::start(config).await.unwrap();
        let wasm = std::fs::read(testdata("guest.wasm")).unwrap();
        for (name, cmd) in [
            ("guest:prints", vec!["prints"]),
            ("guest:fails", vec!["exits", "3"]),
            ("guest:sleeps", vec!["sleeps"]),
        ] {
            let into = dir.path().join(name.replace(':', "-"));
            layout(&into, name, &wasm, &cmd);
            runtime.images().load(&into, None).unwrap();
        }
        runtime.images().load(&testdata("guest.wasm"), Some("guest")).unwrap();
        runtime.images().load(&testdata("http-guest.wasm"), Some("http-guest")).unwrap();
        Self { dir, runtime, next: AtomicU32::new(0) }
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub(crate) async fn pod(&self, annotations: &[(&str, &str)]) -> Pod {
        self.try_pod(annotations).await.unwrap()
    }

    pub(crate) async fn try_pod(&self, annotations: &[(&str, &str)]) -> Result<Pod> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let config = PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: format!("pod-{number}"),
                uid: format!("uid-{number}"),
                namespace: "default".to_owned(),
                attempt: 0,
            },
            log_directory: self.logs().join(format!("pod-{number}")).display().to_string(),
            annotations: wherry_runtimes::fake::map(annotations),
            ..Default::default()
        };
        let id = self.runtime.run_pod_sandbox(&config, "wasmtime").await?;
        let status = self.runtime.pod_sandbox_status(&id).await?.status;
        Ok(Pod { id, config, ip: status.network.unwrap().ip })
    }

    pub(crate) async fn start_container(&self, pod: &Pod, config: ContainerConfig) -> String {
        let id = self.runtime.create_container(&pod.id, &config, &pod.config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs the C guest with arguments to its end; answers status and log texts.
    pub(crate) async fn run(&self, args: &[&str]) -> (ContainerStatus, Vec<String>) {
        let pod = self.pod(&[]).await;
        let id = self.start_container(&pod, command(args)).await;
        let status = self.ended(&id).await;
        let log = self.log(&status);
        self.runtime.remove_pod_sandbox(&pod.id).await.unwrap();
        (status, log)
    }

    pub(crate) async fn ended(&self, id: &str) -> ContainerStatus {
        eventually("the container ends", || async {
            self.runtime.container_status(id).await.unwrap().state == ContainerState::Exited
        })
        .await;
        self.runtime.container_status(id).await.unwrap()
    }

    /// The texts of the log, each with its stream and tag.
    pub(crate) fn log(&self, status: &ContainerStatus) -> Vec<String> {
        let text = std::fs::read_to_string(&status.log_path).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

pub(crate) fn command(args: &[&str]) -> ContainerConfig {
    ContainerConfig { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..container("guest") }
}

pub(crate) fn container(image: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: "main".to_owned(), attempt: 0 },
        image: ImageSpec { image: image.to_owned(), ..Default::default() },
        log_path: "main/0.log".to_owned(),
        ..Default::default()
    }
}

pub(crate) fn with_memory(config: ContainerConfig, megabytes: i64) -> ContainerConfig {
    let resources = LinuxContainerResources { memory_limit_in_bytes: megabytes << 20, ..Default::default() };
    ContainerConfig {
        linux: Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
        ..config
    }
}

/// Waits for something that happens soon, with a limit that only a fault reaches.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let began = Instant::now();
    while !check().await {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

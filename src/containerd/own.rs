//! A containerd of our own: it and its containers survive the node's process, and the next node finds them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use futures::future::join_all;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use wherry_client::Lifecycle;
use wherry_runtime_cri::Client;
use wherry_runtimes::{ContainerFilter, ContainerState, PodSandboxFilter, RuntimeService as _};

use super::config::{Facts, config};
use crate::{daemon::Daemon, data_dir::DataDir};

/// Where programs of the system are that an ordinary search path leaves out.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where CNI plugins are installed, the usual place first. Sources: containerd, Debian, Fedora.
const CNI_PLUGINS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// The longest path of a Unix socket, in bytes, without the final zero. Source: `unix(7)`.
const MAX_SOCKET_PATH: usize = 107;

/// containerd makes a second socket of this name's end beside its own.
const SECOND_SOCKET: &str = ".ttrpc";

/// How long containers are given to end when the node stops in order.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// CAP_SYS_RESOURCE. Source: `capability.h`.
const CAP_SYS_RESOURCE: u32 = 24;

/// A containerd that this node starts.
#[derive(Debug, Clone)]
pub struct OwnContainerd {
    program: PathBuf,
    data_dir: DataDir,
}

impl OwnContainerd {
    pub(super) fn new(program: PathBuf, data_dir: DataDir) -> Self {
        Self { program, data_dir }
    }

    /// Where it answers.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.containerd_socket()
    }

    /// Run it, or watch over the one that a former node started, until `lifecycle` ends; then end its containers and stop
    /// it. `cni_config` is the directory of the CNI configuration in force.
    ///
    /// # Errors
    /// It cannot be configured or started, does not answer, or ended early.
    pub async fn run(self, cni_config: PathBuf, lifecycle: Lifecycle) -> anyhow::Result<()> {
        let socket = self.socket();
        let length = socket.as_os_str().len() + SECOND_SOCKET.len();
        anyhow::ensure!(
            length <= MAX_SOCKET_PATH,
            "containerd's socket {} would have a longer name than the kernel takes; choose a shorter --data-dir",
            socket.display()
        );
        let file = tokio::task::spawn_blocking({
            let own = self.clone();
            move || own.write_config(&cni_config)
        })
        .await??;
        let daemon = Daemon {
            name: "containerd",
            program: self.program.clone(),
            arguments: vec!["--config".to_owned(), file.display().to_string()],
            path: Some(search_path()),
            log: Some(self.data_dir.containerd_state().join("containerd.log")),
            socket: socket.clone(),
            other_uid: None,
        };
        let client = Client::connect(&socket.to_string_lossy())?;
        let scratch = self.data_dir.containerd_root();
        let prepare = || async {
            client.import_pause(&scratch).await.context("cannot bring in the image of pod sandboxes")
        };
        daemon.run(lifecycle, prepare, || end_pods(&client)).await
    }

    fn write_config(&self, cni_config: &Path) -> anyhow::Result<PathBuf> {
        let (root, state) = (self.data_dir.containerd_root(), self.data_dir.containerd_state());
        for directory in [&root, &state] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            fs::set_permissions(directory, mode)
                .with_context(|| format!("cannot close the directory {}", directory.display()))?;
        }
        let snapshotter = if overlay_works(&root) { "overlayfs" } else { "native" };
        let facts = Facts {
            socket: self.socket(),
            cni_plugins: cni_plugins(),
            cni_config: cni_config.to_owned(),
            snapshotter,
            may_lower_oom_score: has_capability(CAP_SYS_RESOURCE),
            root,
            state,
        };
        let file = facts.state.join("config.toml");
        fs::write(&file, config(&facts)).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

/// Ends every pod in containerd: its processes would go on without the node, and the user has asked for the end.
async fn end_pods(client: &Client) {
    let running = ContainerFilter { state: Some(ContainerState::Running), ..ContainerFilter::default() };
    let containers = client.list_containers(&running).await.unwrap_or_default();
    join_all(containers.iter().map(|container| client.stop_container(&container.id, STOP_GRACE))).await;
    let sandboxes = client.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap_or_default();
    for ended in join_all(sandboxes.iter().map(|sandbox| client.stop_pod_sandbox(&sandbox.id))).await {
        if let Err(error) = ended {
            tracing::warn!(%error, "a pod of containers could not be ended");
        }
    }
}

/// The file of a program, on our search path or the system's.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|directory| directory.join(name))
        .find(|path| path.is_absolute() && path.is_file())
}

fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SYSTEM_PATH);
    path
}

fn cni_plugins() -> PathBuf {
    let found = CNI_PLUGINS.iter().map(Path::new).find(|directory| directory.join("bridge").is_file());
    found.unwrap_or(Path::new(CNI_PLUGINS[0])).to_owned()
}

/// Whether overlayfs works on the file system of `root`: tried, because nothing else tells for sure.
fn overlay_works(root: &Path) -> bool {
    let tried = || -> anyhow::Result<()> {
        let directory = root.join("overlay-trial");
        let _ = fs::remove_dir_all(&directory);
        let parts = ["lower", "upper", "work", "merged"].map(|part| directory.join(part));
        for part in &parts {
            fs::create_dir_all(part)?;
        }
        let [lower, upper, work, merged] = &parts;
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let mounted =
            mount(Some("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
        if mounted.is_ok() {
            umount2(merged, MntFlags::MNT_DETACH)?;
        }
        fs::remove_dir_all(&directory)?;
        Ok(mounted?)
    };
    tried().inspect_err(|error| tracing::info!("overlayfs does not work here: {error:#}")).is_ok()
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set & (1 << number) != 0)
}

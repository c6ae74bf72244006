//! A containerd of a test's own, in network and mount namespaces of its own, and images made of Debian's busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A running containerd; it and what runs in it end when this is dropped.
pub(crate) struct Containerd {
    pub(crate) directory: TempDir,
    process: Child,
    pod_cidr: String,
}

/// Why containers cannot be tried here; `None` when they can.
pub(crate) fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let programs = ["containerd", "containerd-shim-runc-v2", "runc", "unshare", "ip", "busybox"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
            || Path::new("/usr/sbin").join(program).is_file()
    };
    if let Some(program) = programs.iter().find(|program| !is_there(program)) {
        return Some(format!("no {program}"));
    }
    (!Path::new("/usr/lib/cni/bridge").is_file()).then(|| "no CNI plugins".to_owned())
}

impl Containerd {
    /// Starts one whose pods have addresses in `pod_cidr`.
    pub(crate) fn start(pod_cidr: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("wherry-cri-").tempdir().unwrap();
        let path = directory.path();
        for name in ["cni", "logs", "scratch"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let conflist = serde_json::json!({"cniVersion": "0.4.0", "name": "test", "plugins": [
            {"type": "bridge", "bridge": "test0", "isGateway": true, "ipam": {
                "type": "host-local", "ranges": [[{"subnet": pod_cidr}]], "dataDir": path.join("ipam")}},
        ]});
        fs::write(path.join("cni/10-test.conflist"), conflist.to_string()).unwrap();
        let config = format!(
            r#"version = 2
root = "{0}/root"
state = "{0}/state"
[grpc]
  address = "{0}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{0}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "wherry.local/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stats_collect_period = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{0}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{0}/state/runc"
"#,
            path.display()
        );
        fs::write(path.join("config.toml"), config).unwrap();
        let log = fs::File::create(path.join("log")).unwrap();
        let script = format!("ip link set lo up; exec containerd -c {}/config.toml", path.display());
        let process = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script])
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { directory, process, pod_cidr: pod_cidr.to_owned() };
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(containerd.socket()).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "{}", containerd.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        containerd
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("c.sock")
    }

    pub(crate) fn pod_cidr(&self) -> &str {
        &self.pod_cidr
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of containerd\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // What a test left running: the shims name our socket, and their children are in their process groups' sessions.
        let socket = self.socket().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
            if cmdline.contains("containerd-shim") && cmdline.contains(&socket) {
                for child in children(pid) {
                    let _ =
                        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::SIGKILL);
                }
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
        }
    }
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Writes an OCI layout whose only image runs `script` with busybox.
pub(crate) fn busybox_layout(directory: &Path, name: &str, script: &str) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok()).unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(busybox.len() as u64);
    header.set_mode(0o755);
    layer.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
    for applet in ["sh", "sleep", "cat", "echo", "wget", "nc", "httpd"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8], media_type: &str| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&hex), bytes).unwrap();
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": format!("sha256:{hex}"), "size": bytes.len(),
        })
    };
    let layer = blob(&layer, "layer.v1.tar");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", script], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(config.to_string().as_bytes(), "config.v1+json");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let mut manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
    manifest["annotations"] = serde_json::json!({"io.containerd.image.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
}

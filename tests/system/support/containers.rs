//! Container images, made of Debian's busybox.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::TestCluster;

/// An image with busybox in `/bin`; without a command it sleeps.
pub(crate) const BUSYBOX: &str = "test/busybox:v1";

/// Why containers cannot be tried here; `None` when they can.
pub(crate) fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only root can make network namespaces".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .any(|directory: PathBuf| directory.join(program).is_file())
    };
    let programs = ["containerd", "containerd-shim-runc-v2", "runc", "unshare", "nsenter", "ip", "busybox"];
    if let Some(program) = programs.iter().find(|program| !is_there(program)) {
        return Some(format!("there is no {program}"));
    }
    (!Path::new("/usr/lib/cni/bridge").is_file()).then(|| "there are no CNI plugins".to_owned())
}

impl TestCluster {
    /// Load the image of busybox under its name.
    pub(crate) fn load_busybox(&self) {
        let layout = tempfile::tempdir().unwrap();
        let archive = busybox_archive(layout.path());
        let output = self.wherry(&["image", "load", archive.to_str().unwrap(), "--name", BUSYBOX]);
        assert_eq!(output.code, 0, "{output:?}");
    }
}

/// An OCI layout in a tar.
fn busybox_archive(directory: &Path) -> PathBuf {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok()).unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in
        ["sh", "sleep", "cat", "echo", "wget", "nc", "httpd", "mkdir", "nslookup", "ls", "id", "hostname"]
    {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let path = directory.join("busybox.tar");
    let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
    let mut blob = |bytes: &[u8], media_type: &str| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        append(&mut archive, &format!("blobs/sha256/{hex}"), bytes, 0o644);
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": format!("sha256:{hex}"), "size": bytes.len(),
        })
    };
    let layer = blob(&layer, "layer.v1.tar");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(config.to_string().as_bytes(), "config.v1+json");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    append(&mut archive, "index.json", index.to_string().as_bytes(), 0o644);
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    archive.finish().unwrap();
    path
}

fn append<W: std::io::Write>(archive: &mut tar::Builder<W>, path: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, path, bytes).unwrap();
}

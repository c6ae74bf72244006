//! Debian's `docker-registry` as a child process, and what is pushed to it by hand.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::eventually;

/// A registry on loopback; ends when dropped.
pub(crate) struct Registry {
    process: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Registry {
    /// An empty registry that answers.
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("wherry-registry-").tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let process = Command::new("docker-registry")
            .args([Path::new("serve"), &configuration])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run docker-registry (Debian: apt-get install docker-registry): {error}")
            });
        let registry = Self { process, address, _directory: directory };
        eventually("the registry", || {
            super::try_get(address, "/v2/").map(|_| ()).map_err(|error| error.to_string())
        });
        registry
    }

    /// A reference to an image in this registry.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Push a Wasm file as an artifact in the CNCF's layout.
    pub(crate) fn push_wasm(&self, repository: &str, tag: &str, file: &Path) {
        let module = std::fs::read(file).unwrap();
        let layer = self.push_blob(repository, &module);
        let config = serde_json::json!({
            "created": "2026-01-02T03:04:05Z", "architecture": "wasm", "os": "wasip1", "layerDigests": [layer],
        });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": self.push_blob(repository, &config), "size": config.len()},
            "layers": [{"mediaType": "application/wasm", "digest": layer, "size": module.len()}],
        });
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        curl(&["-X", "PUT", "-H", kind, "--data-binary", "@-", &url], manifest.to_string().as_bytes());
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let begun = curl(
            &["-X", "POST", "-D", "-", &format!("http://{}/v2/{repository}/blobs/uploads/", self.address)],
            b"",
        );
        let location = begun
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("location")))
            .unwrap_or_else(|| panic!("no Location in {begun}"))
            .1
            .trim();
        let kind = "Content-Type: application/octet-stream";
        let url = format!("{location}&digest={digest}");
        curl(&["-X", "PUT", "-H", kind, "--data-binary", "@-", &url], bytes);
        digest
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sha256(bytes: &[u8]) -> String {
    let printed = piped(Command::new("sha256sum"), bytes);
    format!("sha256:{}", printed.split_whitespace().next().unwrap())
}

fn curl(arguments: &[&str], body: &[u8]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]).args(arguments);
    piped(command, body)
}

fn piped(mut command: Command, input: &[u8]) -> String {
    use std::io::Write as _;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

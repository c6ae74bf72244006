//! `wherry up` as a child process, and kubectl against it.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    eventually,
    site::{Outside, Role, Site},
};

/// The binary under test: cargo's, or a copy where an ordinary user may read it.
pub(super) fn wherry() -> PathBuf {
    std::env::var_os("WHERRY_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_wherry").into(), PathBuf::from)
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

/// A running cluster; stopped, guests included, when dropped.
pub(crate) struct TestCluster {
    directory: TempDir,
    /// `wherry up`, or the API server where every component is a process.
    process: Child,
    /// The components that are processes of their own, in the order in which they were started.
    components: Vec<(Component, Child)>,
    site: Site,
    /// The world around it, in routed mode.
    outside: Option<Outside>,
    arguments: Vec<String>,
}

/// A component that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    Scheduler,
    Controllers,
    Proxy,
    Dns,
    Kubelet,
}

impl Component {
    pub(crate) const ALL: [Self; 5] =
        [Self::Scheduler, Self::Controllers, Self::Proxy, Self::Dns, Self::Kubelet];
}

impl TestCluster {
    /// A cluster that is ready, with a node that is ready.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments for `wherry up`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let (site, outside) = Site::of_environment();
        Self::start_at(site, outside, arguments)
    }

    /// The same at a place of the test's choice. The test's thread moves there.
    pub(crate) fn start_at(mut site: Site, outside: Option<Outside>, arguments: &[&str]) -> Self {
        let directory = directory();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        site.enter();
        let process = spawn(directory.path(), &site, &arguments);
        let mut cluster = Self { directory, process, components: Vec::new(), site, outside, arguments };
        cluster.wait_ready();
        cluster
    }

    /// A cluster whose API server and components are processes of their own, each with its own identity.
    pub(crate) fn start_in_parts() -> Self {
        let (directory, (mut site, outside)) = (directory(), Site::of_environment());
        site.enter();
        // The same at every start: the components' kubeconfigs name it.
        let arguments = vec![format!("--listen={}:{}", site.listen_ip(), free_port())];
        let process = spawn_api_server(directory.path(), &site, &arguments);
        let mut cluster = Self { directory, process, components: Vec::new(), site, outside, arguments };
        cluster.wait_api();
        for component in Component::ALL {
            cluster.start_component(component);
        }
        cluster.wait_node();
        cluster
    }

    /// An API server without any component: nothing changes but what a client changes.
    pub(crate) fn start_api_server() -> Self {
        let (directory, (mut site, outside)) = (directory(), Site::of_environment());
        site.enter();
        let arguments = vec![format!("--listen={}:0", site.listen_ip())];
        let process = spawn_api_server(directory.path(), &site, &arguments);
        let mut cluster = Self { directory, process, components: Vec::new(), site, outside, arguments };
        cluster.wait_api();
        cluster
    }

    /// Start one component as a process.
    pub(crate) fn start_component(&mut self, component: Component) {
        let mut command = logged(self.site.command(&wherry()), self.directory.path());
        let pki = self.data_dir().join("pki");
        match component {
            Component::Scheduler => {
                command.arg("scheduler").arg("--kubeconfig").arg(pki.join("scheduler.yaml"))
            }
            Component::Controllers => command
                .arg("controllers")
                .arg("--kubeconfig")
                .arg(pki.join("controllers.yaml"))
                .arg("--root-ca-file")
                .arg(pki.join("ca.crt")),
            Component::Proxy => command
                .arg("proxy")
                .arg("--kubeconfig")
                .arg(pki.join("proxy.yaml"))
                .args(["--node-name", NODE_NAME]),
            Component::Dns => command.arg("dns").arg("--kubeconfig").arg(pki.join("dns.yaml")),
            Component::Kubelet => command
                .arg("kubelet")
                .arg("--kubeconfig")
                .arg(pki.join(format!("kubelet-{NODE_NAME}.yaml")))
                .arg("--data-dir")
                .arg(self.data_dir())
                .args(["--node-name", NODE_NAME, "--kubelet-port", "0"]),
        };
        let role = match component {
            Component::Scheduler => None,
            Component::Controllers => Some(Role::Controllers),
            Component::Proxy => Some(Role::Proxy),
            Component::Dns => Some(Role::Dns),
            Component::Kubelet => Some(Role::Kubelet),
        };
        command.args(role.map(|role| self.site.arguments(role)).unwrap_or_default());
        self.components.push((component, command.spawn().unwrap()));
    }

    /// End one component with SIGKILL.
    pub(crate) fn kill_component(&mut self, component: Component) {
        let position = self.components.iter().position(|(which, _)| *which == component).unwrap();
        let (_, mut process) = self.components.remove(position);
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// A second API server over the same store, with the same authority and a data directory of its own.
    pub(crate) fn second_api_server(&self, store: &str) -> ApiServer {
        let directory = directory();
        let (from, to) = (self.data_dir().join("pki"), directory.path().join("data/pki"));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let file = entry.unwrap().path();
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
        let arguments = [format!("--listen={}:0", self.site.listen_ip()), format!("--store={store}")];
        let process = spawn_api_server(directory.path(), &self.site, &arguments);
        let server = ApiServer { directory, process };
        eventually("the second API server's readiness", || {
            let output = run(server.kubectl_command().args(["get", "--raw", "/readyz"]), None);
            if output.code == 0 { Ok(()) } else { Err(output.stderr) }
        });
        server
    }

    /// The API server again, after it was killed; the components are as they were.
    pub(crate) fn start_api_server_again(&mut self) {
        self.process = spawn_api_server(self.directory.path(), &self.site, &self.arguments);
        self.wait_api();
    }

    /// `wherry up` again on the same data, after it was killed or stopped.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(self.directory.path(), &self.site, &self.arguments);
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        self.wait_api();
        self.wait_node();
    }

    fn wait_api(&mut self) {
        eventually("the cluster's readiness", || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("wherry ended with {status}:\n{}", self.log());
            }
            if !self.kubeconfig().exists() {
                return Err("there is no kubeconfig".to_owned());
            }
            let output = self.kubectl(&["get", "--raw", "/readyz"]);
            if output.code == 0 { Ok(()) } else { Err(output.stderr) }
        });
    }

    fn wait_node(&mut self) {
        eventually("the node's readiness", || {
            let ended = self.components.iter_mut().find_map(|(component, process)| {
                process.try_wait().unwrap().map(|status| format!("{component:?} ended with {status}"))
            });
            if let Some(ended) = ended {
                panic!("{ended}:\n{}", self.log());
            }
            let node = format!("node/{NODE_NAME}");
            let output = self.kubectl(&["wait", "--for=condition=Ready", &node, "--timeout=5s"]);
            if output.code == 0 { Ok(()) } else { Err(format!("{}\n{}", output.stderr, self.log())) }
        });
    }

    /// Where the cluster is.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// The world around it; only in routed mode.
    pub(crate) fn outside(&self) -> &Outside {
        self.outside.as_ref().expect("a cluster in routed mode")
    }

    /// The node's address.
    pub(crate) fn node_ip(&self) -> IpAddr {
        self.site.node_ip()
    }

    /// An address of the node's that no pod gets, number 1 and up.
    pub(crate) fn spare(&self, number: u8) -> IpAddr {
        self.site.spare(number)
    }

    /// The process of `wherry up`.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig.yaml")
    }

    /// What the cluster logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// End `wherry up` as the kernel ends a process that is out of memory. The Wasm runtime is another process.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// End `wherry up` as Ctrl-C does.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.pid()), Signal::SIGINT).unwrap();
        self.process.wait().unwrap()
    }

    /// The process of the Wasm runtime: the one behind its socket.
    pub(crate) fn runtime_pid(&self) -> Option<i32> {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        let stream =
            std::os::unix::net::UnixStream::connect(self.data_dir().join("run/wasm/cri.sock")).ok()?;
        Some(getsockopt(&stream, PeerCredentials).ok()?.pid())
    }

    /// Run `wherry` with `arguments` and this cluster's data directory.
    pub(crate) fn wherry(&self, arguments: &[&str]) -> Output {
        let mut command = self.site.command(&wherry());
        command.args(arguments).arg("--data-dir").arg(self.data_dir());
        run(&mut command, None)
    }

    /// Run kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        run(self.kubectl_command().args(arguments), None)
    }

    /// Run kubectl with text on its standard input.
    pub(crate) fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Output {
        run(self.kubectl_command().args(arguments), Some(input))
    }

    /// kubectl against this cluster, and nothing of the user's own.
    pub(crate) fn kubectl_command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.directory.path());
        command
    }

    /// What kubectl printed; it must have succeeded.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert_eq!(output.code, 0, "kubectl {arguments:?}: {output:?}\n{}", self.state());
        output.stdout
    }

    /// `kubectl apply` of a manifest; it must succeed.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        let output = self.kubectl_with_input(&["apply", "-f", "-"], manifest);
        assert_eq!(output.code, 0, "{output:?}\n{manifest}");
        output.stdout
    }

    /// Load a sample's guest, built or prebuilt, under the name that its manifest uses, and apply the manifest.
    pub(crate) fn apply_sample(&self, name: &str) {
        self.load_sample(name);
        self.ok(&["apply", "-f", samples().join(name).join("manifest.yaml").to_str().unwrap()]);
    }

    /// Load a sample's guest under the name that its manifest uses.
    pub(crate) fn load_sample(&self, name: &str) {
        let folder = samples().join(name);
        let built = folder.join("build").join(format!("{name}.wasm"));
        let file = if built.exists() { built } else { folder.join(format!("{name}.wasm")) };
        let output =
            self.wherry(&["image", "load", file.to_str().unwrap(), "--name", &format!("samples/{name}:v1")]);
        assert_eq!(output.code, 0, "{output:?}");
    }

    /// The address and first port of a Service.
    pub(crate) fn service(&self, name: &str) -> SocketAddr {
        let address =
            self.ok(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}"]);
        address.parse().unwrap_or_else(|_| panic!("{name} has no address: {address}"))
    }

    /// What is there, for the message of a test that failed.
    pub(crate) fn state(&self) -> String {
        let all = self.kubectl(&["get", "all,events", "-A", "-o", "wide"]);
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{}\n{}\n--- log\n{}", all.stdout, all.stderr, tail.join("\n"))
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let runtime = self.runtime_pid();
        while let Some((_, mut component)) = self.components.pop() {
            let _ = kill(Pid::from_raw(i32::try_from(component.id()).unwrap()), Signal::SIGTERM);
            let _ = component.wait();
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            let _ = self.process.wait();
        }
        // A test may have killed the parent only.
        if let Some(runtime) = runtime {
            let _ = kill(Pid::from_raw(runtime), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- log of the cluster\n{}", self.log());
        }
    }
}

/// An API server beside a cluster's own; killed when dropped.
pub(crate) struct ApiServer {
    directory: TempDir,
    process: Child,
}

impl ApiServer {
    /// kubectl against this server, and nothing of the user's own.
    pub(crate) fn kubectl_command(&self) -> Command {
        let mut command = Command::new("kubectl");
        let kubeconfig = self.directory.path().join("data/kubeconfig.yaml");
        command.env("KUBECONFIG", kubeconfig).env("HOME", self.directory.path());
        command
    }

    /// What kubectl printed; it must have succeeded.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = run(self.kubectl_command().args(arguments), None);
        assert_eq!(output.code, 0, "kubectl {arguments:?}: {output:?}");
        output.stdout
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- log of the API server\n{}",
                fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
            );
        }
    }
}

/// The folder of the samples.
pub(crate) fn samples() -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/samples");
    std::env::var_os("WHERRY_TEST_SAMPLES").map_or_else(|| folder.into(), PathBuf::from)
}

/// The name of every test cluster's node.
pub(crate) const NODE_NAME: &str = "test-node";

pub(super) fn directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("wherry-test-").tempdir().unwrap();
    // The runtime's unprivileged user must be able to pass.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(directory: &Path, site: &Site, arguments: &[String]) -> Child {
    logged(site.command(&wherry()), directory)
        .arg("up")
        .arg("--data-dir")
        .arg(directory.join("data"))
        .args([&format!("--listen={}:0", site.listen_ip()), "--kubelet-port", "0", "--node-name", NODE_NAME])
        .args(site.arguments(Role::Up))
        .args(arguments)
        .spawn()
        .unwrap()
}

fn spawn_api_server(directory: &Path, site: &Site, arguments: &[String]) -> Child {
    logged(site.command(&wherry()), directory)
        .arg("apiserver")
        .arg("--data-dir")
        .arg(directory.join("data"))
        .args(["--node-name", NODE_NAME])
        .args(site.arguments(Role::ApiServer))
        .args(arguments)
        .spawn()
        .unwrap()
}

/// The command, with all that it says in the cluster's log.
pub(super) fn logged(mut command: Command, directory: &Path) -> Command {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command
}

pub(super) fn run(command: &mut Command, input: Option<&str>) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A command that does not read its input to the end says why on standard error.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().unwrap();
    Output {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

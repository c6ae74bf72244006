//! Further nodes of a cluster, each on a machine of its own.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    TestCluster,
    cluster::{directory, logged, run, wherry},
    site::{Role, Routed, Site},
};

/// `wherry kubelet` and `wherry proxy` on another machine; they and what they started end when this is dropped.
pub(crate) struct SecondNode {
    name: String,
    processes: Vec<Child>,
    site: Site,
    directory: TempDir,
}

impl SecondNode {
    /// Join the cluster from `machine`.
    pub(crate) fn join(cluster: &TestCluster, name: &str, machine: Routed) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        // The authority signs the serving certificate of the node's API.
        let pki = data.join("pki");
        fs::create_dir_all(&pki).unwrap();
        for file in ["ca.crt", "ca.key"] {
            fs::copy(cluster.data_dir().join("pki").join(file), pki.join(file)).unwrap();
        }
        for (file, identity) in [("kubelet.yaml", vec!["--node", name]), ("proxy.yaml", vec!["--proxy"])] {
            let printed = cluster.wherry(&[&["kubeconfig"], identity.as_slice()].concat());
            assert_eq!(printed.code, 0, "{printed:?}");
            fs::write(directory.path().join(file), printed.stdout).unwrap();
        }
        let mut node = Self {
            name: name.to_owned(),
            processes: Vec::new(),
            site: Site::Routed(Box::new(machine)),
            directory,
        };
        node.start();
        node
    }

    fn start(&mut self) {
        let path = |file: &str| self.directory.path().join(file);
        let mut kubelet = logged(self.site.command(&wherry()), self.directory.path());
        kubelet.arg("kubelet").arg("--data-dir").arg(path("data"));
        kubelet.args(["--kubelet-port", "0"]).arg("--kubeconfig").arg(path("kubelet.yaml"));
        kubelet.args(["--node-name", &self.name]).args(self.site.arguments(Role::Kubelet));
        let mut proxy = logged(self.site.command(&wherry()), self.directory.path());
        proxy.arg("proxy").arg("--kubeconfig").arg(path("proxy.yaml"));
        proxy.args(["--node-name", &self.name]).args(self.site.arguments(Role::Proxy));
        for mut command in [kubelet, proxy] {
            self.processes.push(self.machine().namespace().within(|| command.spawn()).unwrap());
        }
    }

    /// The machine.
    pub(crate) fn machine(&self) -> &Routed {
        self.site.machine().unwrap()
    }

    /// Its address.
    pub(crate) fn node_ip(&self) -> Ipv4Addr {
        self.machine().node_ip()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Load an image on this node.
    pub(crate) fn load_image(&self, file: &str, name: &str) {
        let data: PathBuf = self.directory.path().join("data");
        let mut command = Command::new(wherry());
        command.args(["image", "load", file, "--name", name, "--data-dir"]).arg(data);
        let output = run(&mut command, None);
        assert_eq!(output.code, 0, "{output:?}");
    }

    /// End the node's processes, guests included.
    pub(crate) fn stop(&mut self) {
        for mut process in self.processes.drain(..).rev() {
            let _ = kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM);
            let _ = process.wait();
        }
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- log of node {}\n{}", self.name, self.log());
        }
    }
}

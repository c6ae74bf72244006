//! Linux containers through a containerd that the node starts itself.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::{collections::BTreeMap, fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{BUSYBOX, Outside, Site, TestCluster, eventually, get, missing_for_containers};

/// A cluster on a machine of its own that has the container image.
fn cluster(test: &str) -> Option<TestCluster> {
    if let Some(missing) = missing_for_containers() {
        eprintln!("SKIPPED {test}: {missing}");
        return None;
    }
    let outside = Outside::new();
    let machine = outside.machine(1, None);
    let cluster = TestCluster::start_at(Site::Routed(Box::new(machine)), Some(outside), &[]);
    cluster.wait_containerd();
    cluster.load_busybox();
    Some(cluster)
}

impl TestCluster {
    fn wait_containerd(&self) {
        let path = "jsonpath={.items[0].status.conditions[?(@.type==\"ContainerRuntimeReady\")].status}";
        eventually("the container runtime", || {
            let status = self.ok(&["get", "nodes", "-o", path]);
            if status == "True" { Ok(()) } else { Err(status) }
        });
    }

    fn containerd_pid(&self) -> Option<i32> {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        let socket = self.data_dir().join("run/containerd/c.sock");
        let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
        Some(getsockopt(&stream, PeerCredentials).ok()?.pid())
    }

    /// What tells one run of a container from another.
    fn run_of(&self, pod: &str) -> String {
        let status = ".status.containerStatuses[0]";
        ["containerID", "state.running.startedAt", "restartCount"]
            .map(|field| self.pod_field(pod, &format!("{status}.{field}")))
            .join(" ")
    }
}

#[test]
fn a_container_runs_logs_and_ends_with_its_code_beside_a_wasm_pod() {
    let Some(cluster) = cluster("containers run") else { return };
    let listed = cluster.wherry(&["image", "ls"]).stdout;
    assert!(listed.lines().any(|line| line.contains(BUSYBOX) && line.ends_with("runc")), "{listed}");
    cluster.apply_sample("hello-http");
    let script = "echo hello from $HOSTNAME; exit 7";
    cluster.ok(&["run", "short", "--image", BUSYBOX, "--restart=Never", "--", "sh", "-c", script]);
    cluster.wait_status("short", "Error");
    assert_eq!(cluster.ok(&["logs", "short"]), "hello from short\n");
    assert_eq!(cluster.pod_field("short", ".status.containerStatuses[0].state.terminated.exitCode"), "7");
    assert!(
        cluster.pod_field("short", ".status.containerStatuses[0].containerID").starts_with("containerd://")
    );
    cluster.wait_events(
        "short",
        &[
            "Normal Pulled Container image \"test/busybox:v1\" already present on machine",
            "Normal Created Created container: short",
            "Normal Started Started container short",
        ],
    );

    // Chosen by class too; and what no runtime has is asked for in a registry that nobody can reach.
    let serve = "mkdir /www && echo from a container > /www/index.html; exec httpd -f -p 8080 -h /www";
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server"},
        "spec": {"runtimeClassName": "runc", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": BUSYBOX, "command": ["sh", "-c", serve],
            "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1}}]},
    });
    cluster.apply(&pod.to_string());
    cluster.ok(&["wait", "--for=condition=Ready", "pod/server", "--timeout=60s"]);
    assert_eq!(get(cluster.pod_address("server", 8080), "/"), "from a container\n");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    cluster.ok(&["run", "nowhere", "--image", "127.0.0.1:1/x/y:v1", "--restart=Never"]);
    cluster.wait_status("nowhere", "ImagePullBackOff");

    let wait = ["delete", "pod", "short", "server", "nowhere", "--wait", "--timeout=60s"];
    cluster.ok(&wait);
}

#[test]
fn containers_outlive_the_node_and_containerd() {
    let Some(mut cluster) = cluster("containers are adopted") else { return };
    cluster.ok(&["run", "stays", "--image", BUSYBOX, "--", "sleep", "100000"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=60s"]);
    let run = cluster.run_of("stays");
    assert!(run.ends_with(" 0"), "{run}");

    let before = cluster.containerd_pid();
    cluster.kill();
    cluster.start_again();
    cluster.wait_containerd();
    assert_eq!(cluster.containerd_pid(), before, "the same containerd is watched over");
    assert_eq!(cluster.run_of("stays"), run, "after the node's process was killed");

    kill(Pid::from_raw(before.expect("containerd")), Signal::SIGKILL).unwrap();
    let after = eventually("another containerd", || match cluster.containerd_pid() {
        Some(pid) if Some(pid) != before => Ok(pid),
        found => Err(format!("{found:?}")),
    });
    eprintln!("containerd {before:?} was killed; {after} goes on");
    cluster.wait_containerd();
    cluster.ok(&["run", "next", "--image", BUSYBOX, "--restart=Never", "--", "echo", "again"]);
    cluster.wait_status("next", "Completed");
    assert_eq!(cluster.run_of("stays"), run, "after containerd was killed");
    assert!(!cluster.pod_events("stays").contains("SandboxChanged"), "{}", cluster.pod_events("stays"));
    cluster.ok(&["delete", "pod", "stays", "next", "--grace-period=0", "--wait", "--timeout=60s"]);
}

/// What pods leave behind if they leave anything: how many of each.
fn remains(cluster: &TestCluster) -> BTreeMap<&'static str, usize> {
    let machine = cluster.site().machine().unwrap();
    let count = |path: &str| fs::read_dir(cluster.data_dir().join(path)).map_or(0, Iterator::count);
    let shims = machine.processes().len();
    let mounts = cluster.containerd_pid().map_or(0, |pid| {
        fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default().lines().count()
    });
    BTreeMap::from([
        ("processes", shims),
        ("mounts", mounts),
        ("devices", machine.namespace().ip("-o link").lines().count()),
        ("addresses", files_below(&cluster.data_dir().join("cni/ipam"))),
        ("pod directories", count("kubelet/pods")),
        ("log directories", count("logs")),
        ("runc states", count("run/containerd/runc/k8s.io")),
        ("sandboxes", count("run/containerd/io.containerd.grpc.v1.cri/sandboxes")),
        ("namespaces", count("run/containerd/io.containerd.grpc.v1.cri/netns")),
        ("tasks", count("run/containerd/io.containerd.runtime.v2.task/k8s.io")),
    ])
}

fn files_below(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[test]
fn pods_that_come_and_go_leave_nothing_behind() {
    let Some(cluster) = cluster("pods leave nothing behind") else { return };
    let pods: usize = std::env::var("WHERRY_TEST_PODS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let round = 20;
    let go = |number: usize| {
        let names: Vec<String> = (0..round).map(|n| format!("p{number}-{n}")).collect();
        let all: Vec<String> = names
            .iter()
            .map(|name| {
                serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "100000"]}]}})
                .to_string()
            })
            .collect();
        cluster.apply(&all.join("\n"));
        let mut arguments = vec!["wait", "--for=condition=Ready", "--timeout=120s", "pod"];
        arguments.extend(names.iter().map(String::as_str));
        cluster.ok(&arguments);
        cluster.ok(&["delete", "pods", "--all", "--wait", "--timeout=120s"]);
    };
    // The first round makes what is made once: the bridge, directories.
    go(0);
    let mut before = BTreeMap::new();
    eventually("rest", || {
        let now = remains(&cluster);
        if now == before {
            Ok(())
        } else {
            before = now;
            Err(format!("{before:?}"))
        }
    });
    for number in 1..=pods.div_ceil(round) {
        go(number);
    }
    let after = eventually("what was before", || {
        let now = remains(&cluster);
        if now == before { Ok(now) } else { Err(format!("{now:?} is not {before:?}")) }
    });
    println!("{pods} pods came and went; before and after: {after:?}");
}

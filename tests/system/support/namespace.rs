//! Network namespaces of a test's own, with no way out of them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sched::{CloneFlags, setns, unshare};

/// Where a thread sees its own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace; it is gone when this is dropped and nothing runs in it any more.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new one, with nothing but its loopback device.
    pub(crate) fn new() -> Self {
        // A thread's own namespace: the test's thread stays where it is.
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: routed tests need root");
            File::open(OWN).unwrap()
        });
        let namespace = Self { handle: made.join().unwrap() };
        namespace.ip("link set lo up");
        namespace
    }

    /// The present thread moves in, and with it what it starts; it moves back when the answer is dropped.
    pub(crate) fn enter(&self) -> Inside {
        let before = File::open(OWN).unwrap();
        setns(&self.handle, CloneFlags::CLONE_NEWNET).unwrap();
        Inside { before }
    }

    /// Do something inside.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.enter();
        work()
    }

    /// Run `ip` of iproute2 inside; it must succeed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.run("ip", &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Run a program inside; it must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.within(|| Command::new(program).args(arguments).output());
        let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A path by which other programs find it while this is held.
    pub(crate) fn path(&self) -> PathBuf {
        descriptor(&self.handle)
    }

    /// A pair of devices: `name` in here with `address`, the other end called `other_name` in `other`.
    pub(crate) fn join(&self, name: &str, address: &str, other: &Self, other_name: &str) {
        let there = other.path();
        self.ip(&format!(
            "link add {name} type veth peer name {other_name} netns {}",
            there.to_str().unwrap()
        ));
        self.ip(&format!("address add {address} dev {name}"));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }

    /// Pass packets on, as a router.
    pub(crate) fn forward(&self) {
        self.within(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    }
}

/// As long as this is kept, the thread is in another namespace than it was.
#[derive(Debug)]
pub(crate) struct Inside {
    before: File,
}

impl Drop for Inside {
    fn drop(&mut self) {
        setns(&self.before, CloneFlags::CLONE_NEWNET).expect("back to where the test was");
    }
}

/// Where programs are started: what they mount is seen by nobody else, and gone with them; and the root of the control
/// groups that they see is a group of their own, so that what is attached to it is nobody else's either.
#[derive(Debug)]
pub(crate) struct Container {
    mounts: File,
    groups: File,
    group: ControlGroup,
}

impl Container {
    pub(crate) fn new() -> Self {
        let group = ControlGroup::new();
        let script = r#"
            set -e
            echo $$ > "$0/cgroup.procs"
            exec unshare --mount --propagation private --cgroup sh -c '
                set -e
                umount "$0"
                mount -t cgroup2 cgroup2 "$0"
                [ ! -d /sys/fs/bpf ] || mount -t bpf bpf /sys/fs/bpf
                echo ready
                exec sleep 60' "$1""#;
        let mut holder = Command::new("sh")
            .args(["-c", script])
            .args([group.path(), group.root()])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut word).unwrap();
        assert_eq!(word, "ready\n", "unshare of util-linux makes namespaces");
        let open = |what: &str| File::open(format!("/proc/{}/ns/{what}", holder.id())).unwrap();
        let (mounts, groups) = (open("mnt"), open("cgroup"));
        holder.kill().unwrap();
        holder.wait().unwrap();
        // Not before: a group with processes cannot have it.
        group.enable_controllers();
        Self { mounts, groups, group }
    }

    /// A command that runs `program` in here, in the present network namespace.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec nsenter "$@""#]);
        command.arg(self.group.leaf());
        command.arg(format!("--mount={}", descriptor(&self.mounts).display()));
        command.arg(format!("--cgroup={}", descriptor(&self.groups).display()));
        command.arg("--").arg(program);
        command
    }

    /// The processes that were started in here, and theirs.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.group.processes()
    }
}

fn descriptor(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// A control group (of version 2) for everything that a cluster starts; ended and removed when dropped.
#[derive(Debug)]
struct ControlGroup {
    root: PathBuf,
    path: PathBuf,
}

impl ControlGroup {
    fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            (fields.next()? == "cgroup2").then_some(path)
        });
        let root = PathBuf::from(root.expect("a cgroup2 file system"));
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = root.join(format!("wherry-test-{}-{number}", std::process::id()));
        let group = Self { root, path };
        fs::create_dir_all(group.leaf()).unwrap();
        group
    }

    /// Where version 2 has the controllers, containers are limited by groups below this one.
    fn enable_controllers(&self) {
        for parent in [&self.root, &self.path] {
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+cpu +memory +pids");
        }
    }

    /// Where the file system is mounted.
    fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// A group with processes may have no groups that are limited: they have one of their own.
    fn leaf(&self) -> PathBuf {
        self.path.join("node")
    }

    /// The processes in it and below it.
    fn processes(&self) -> Vec<i32> {
        fn collect(path: &Path, found: &mut Vec<i32>) {
            let here = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(here.lines().filter_map(|line| line.parse::<i32>().ok()));
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    collect(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        collect(&self.path, &mut found);
        found
    }
}

/// The groups of version 1 that processes are in: container runtimes make them, and who kills containers has to remove them.
fn legacy_groups(processes: &[i32]) -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut roots: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, point, "cgroup", options, ..] = fields.as_slice() {
            roots.push((*point, options.split(',').collect()));
        }
    }
    let mut groups = BTreeSet::new();
    for pid in processes {
        // `4:memory:/kubepods/…`
        for line in fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default().lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controller), Some(path)) = (fields.next(), fields.next()) else { continue };
            let controller = controller.split(',').next().unwrap_or_default();
            let root =
                roots.iter().find(|(_, options)| !controller.is_empty() && options.contains(&controller));
            if let (Some((root, _)), true) = (root, path.len() > 1) {
                groups.insert(Path::new(root).join(&path[1..]));
            }
        }
    }
    groups
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        fn remove(path: &Path) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(path);
        }
        let legacy = legacy_groups(&self.processes());
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let started = std::time::Instant::now();
        while !self.processes().is_empty() && started.elapsed().as_secs() < 10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        remove(&self.path);
        for group in legacy {
            // Its parents too, as long as nothing else is in them.
            let mut empty = Some(group.as_path());
            while let Some(path) = empty.filter(|path| fs::remove_dir(path).is_ok()) {
                empty = path.parent();
            }
        }
    }
}

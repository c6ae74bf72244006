//! Network namespaces of a test's own, with no way out of them.

use std::{
    fs::{self, File},
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

/// A mount namespace that programs are started in: what they mount is seen by nobody else, and gone with them.
#[derive(Debug)]
pub(crate) struct Mounts {
    handle: File,
}

impl Mounts {
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sleep", "60"])
            .spawn()
            .expect("unshare of util-linux");
        let path = format!("/proc/{}/ns/mnt", holder.id());
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        // Until it has moved.
        let started = std::time::Instant::now();
        while fs::read_link(&path).is_ok_and(|now| now == own) {
            assert!(started.elapsed().as_secs() < 30, "no mount namespace");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let handle = File::open(path).unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
        Self { handle }
    }

    /// `program` with what it mounts in here, in a control group of its own.
    pub(crate) fn command(&self, program: &Path, group: &ControlGroup) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={}", descriptor(&self.handle).display()));
        command
            .args(["sh", "-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(group.path())
            .arg(program);
        command
    }
}

fn descriptor(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// A control group (of version 2) for everything that a cluster starts; ended and removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    pub(crate) fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            (fields.next()? == "cgroup2").then_some(path)
        });
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("wherry-test-{}-{number}", std::process::id());
        let path = Path::new(root.expect("a cgroup2 file system")).join(name);
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The processes in it and below it.
    pub(crate) fn processes(&self) -> Vec<i32> {
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
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let started = std::time::Instant::now();
        while !self.processes().is_empty() && started.elapsed().as_secs() < 10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        remove(&self.path);
    }
}

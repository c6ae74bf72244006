//! Making and removing the pods' cgroups.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use rustix::process::{Pid, Signal, kill_process};

use super::hierarchy::{Hierarchy, Version};
use super::settings::{Settings, files};
use crate::kubelet::path_part;
use crate::pod::linux_resources::{MIN_CPU_SHARES, cpu_shares, pod_resources};
use crate::pod::resources::{Amounts, qos_class};

/// An empty cgroup of a pod that nobody knows is removed when it is older.
const ORPHAN_AGE: Duration = Duration::from_secs(300);

/// A cgroup that could not be made, limited or removed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct CgroupError {
    /// Where.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The cgroups below one root. All functions block for the time of some file writes.
#[derive(Debug)]
pub struct PodCgroups {
    hierarchies: Vec<Hierarchy>,
    /// `kubepods` below the configured root, without the leading slash.
    root: PathBuf,
    node: Settings,
    /// Shares of the burstable pods by uid: their class gets the sum.
    burstable: Mutex<BTreeMap<String, i64>>,
}

/// The directory of a class of service; guaranteed pods stand beside the other classes.
fn class_directory(class: &str) -> &'static str {
    match class {
        "Burstable" => "burstable",
        "BestEffort" => "besteffort",
        _ => "",
    }
}

impl PodCgroups {
    /// The cgroups below `root` (absolute, as cgroup paths are), limited together to what pods may use.
    pub fn new(hierarchies: Vec<Hierarchy>, root: &str, allocatable: &Amounts) -> Self {
        let root = Path::new(root)
            .components()
            .filter_map(|part| match part {
                std::path::Component::Normal(part) => Some(part),
                _ => None,
            })
            .collect::<PathBuf>()
            .join("kubepods");
        let node = Settings {
            cpu_shares: allocatable.get("cpu").map(|millicores| cpu_shares(*millicores)),
            cpu_quota: None,
            memory_bytes: allocatable.get("memory").copied().filter(|bytes| *bytes > 0),
        };
        Self { hierarchies, root, node, burstable: Mutex::default() }
    }

    fn relative(&self, spec: &PodSpec, uid: &str) -> PathBuf {
        self.root.join(class_directory(qos_class(spec))).join(path_part(&format!("pod{uid}")))
    }

    /// The path of a pod's cgroup, as a runtime is told it.
    pub fn parent(&self, pod: &Pod) -> String {
        let default = PodSpec::default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        format!("/{}", self.relative(pod.spec.as_ref().unwrap_or(&default), uid).display())
    }

    /// Makes a pod's cgroup with its limits, or brings them up to date. Idempotent.
    pub fn ensure(&self, pod: &Pod) -> Result<(), CgroupError> {
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let own = pod_resources(spec);
        let burstable = {
            let mut pods = self.burstable.lock().unwrap_or_else(PoisonError::into_inner);
            if qos_class(spec) == "Burstable" {
                pods.insert(uid.to_owned(), own.cpu_shares);
            }
            total(&pods)
        };
        self.write(&self.root, &self.node)?;
        for class in ["Burstable", "BestEffort"] {
            self.write_class(class, burstable)?;
        }
        self.write(&self.relative(spec, uid), &Settings::from(&own))
    }

    fn write_class(&self, class: &str, burstable_shares: i64) -> Result<(), CgroupError> {
        let shares = if class == "Burstable" { burstable_shares } else { MIN_CPU_SHARES };
        let settings = Settings { cpu_shares: Some(shares), ..Settings::default() };
        self.write(&self.root.join(class_directory(class)), &settings)
    }

    /// Makes one cgroup in every hierarchy that has something to set.
    fn write(&self, relative: &Path, settings: &Settings) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            let mut settings = settings.clone();
            if hierarchy.version == Version::V2 {
                if !self.is_unified() {
                    continue;
                }
                enable_controllers(hierarchy, relative)?;
                let available =
                    fs::read_to_string(hierarchy.mount_point.join(relative).join("cgroup.controllers"));
                if let Ok(available) = available {
                    let has = |name: &str| available.split_whitespace().any(|known| known == name);
                    if !has("cpu") {
                        (settings.cpu_shares, settings.cpu_quota) = (None, None);
                    }
                    if !has("memory") {
                        settings.memory_bytes = None;
                    }
                }
            } else if !["cpu", "memory"].iter().any(|name| hierarchy.has(name)) {
                continue;
            }
            let directory = hierarchy.mount_point.join(relative);
            fs::create_dir_all(&directory)
                .map_err(|source| CgroupError { path: directory.clone(), source })?;
            for (name, value) in files(hierarchy, &settings) {
                let path = directory.join(name);
                fs::write(&path, value).map_err(|source| CgroupError { path, source })?;
            }
        }
        Ok(())
    }

    /// Whether v2 has the controllers: no v1 hierarchy has them.
    fn is_unified(&self) -> bool {
        !self.hierarchies.iter().any(|h| h.version == Version::V1 && (h.has("cpu") || h.has("memory")))
    }

    /// Removes a pod's cgroup in every hierarchy, with what a runtime left below. What still runs there is killed, and
    /// the removal is an error until it is gone. Idempotent.
    pub fn remove(&self, uid: &str) -> Result<(), CgroupError> {
        let name = path_part(&format!("pod{uid}"));
        for class in ["", "burstable", "besteffort"] {
            for hierarchy in &self.hierarchies {
                let directory = hierarchy.mount_point.join(&self.root).join(class).join(&name);
                if directory.is_dir() {
                    kill_all(&directory);
                    remove_tree(&directory)?;
                }
            }
        }
        let burstable = {
            let mut pods = self.burstable.lock().unwrap_or_else(PoisonError::into_inner);
            pods.remove(uid).map(|_| total(&pods))
        };
        match burstable {
            Some(shares) => self.write_class("Burstable", shares),
            None => Ok(()),
        }
    }

    /// Removes empty cgroups of pods that are long gone. What holds a process stays.
    pub fn remove_orphans(&self, is_known: impl Fn(&str) -> bool) {
        for hierarchy in &self.hierarchies {
            for class in ["", "burstable", "besteffort"] {
                let directory = hierarchy.mount_point.join(&self.root).join(class);
                let Ok(entries) = fs::read_dir(directory) else { continue };
                for entry in entries.filter_map(Result::ok) {
                    let name = entry.file_name();
                    let Some(uid) = name.to_str().and_then(|name| name.strip_prefix("pod")) else { continue };
                    let age =
                        entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
                    if !is_known(uid) && age.is_some_and(|age| age > ORPHAN_AGE) {
                        let _ = remove_tree(&entry.path());
                    }
                }
            }
        }
    }
}

fn total(pods: &BTreeMap<String, i64>) -> i64 {
    pods.values().fold(0_i64, |sum, shares| sum.saturating_add(*shares)).clamp(MIN_CPU_SHARES, 262_144)
}

/// Lets the children of every ancestor use the controllers. Source: the kernel's cgroup-v2 documentation.
fn enable_controllers(hierarchy: &Hierarchy, relative: &Path) -> Result<(), CgroupError> {
    let mut directory = hierarchy.mount_point.clone();
    for part in relative.components() {
        let control = directory.join("cgroup.subtree_control");
        let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let enabled = fs::read_to_string(&control).unwrap_or_default();
        let missing: Vec<String> = available
            .split_whitespace()
            .filter(|name| matches!(*name, "cpu" | "cpuset" | "memory" | "pids" | "io" | "hugetlb"))
            .filter(|name| !enabled.split_whitespace().any(|known| known == *name))
            .map(|name| format!("+{name}"))
            .collect();
        if !missing.is_empty() {
            fs::write(&control, missing.join(" ")).map_err(|source| CgroupError { path: control, source })?;
        }
        directory.push(part);
        fs::create_dir_all(&directory).map_err(|source| CgroupError { path: directory.clone(), source })?;
    }
    Ok(())
}

fn kill_all(directory: &Path) {
    let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    for child in children(directory) {
        kill_all(&child);
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a cgroup and those below it. Their files go with them.
fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    for child in children(directory) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CgroupError { path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn pod(uid: &str, resources: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid},
            "spec": {"containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    fn v1(directory: &Path, controllers: &[&str]) -> Hierarchy {
        Hierarchy {
            mount_point: directory.join(controllers[0]),
            version: Version::V1,
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn pods_stand_below_their_class_with_their_limits_on_v1_beside_an_empty_v2() {
        let directory = tempfile::tempdir().unwrap();
        let unified = Hierarchy {
            mount_point: directory.path().join("unified"),
            version: Version::V2,
            controllers: BTreeSet::new(),
        };
        let hierarchies = vec![
            unified,
            v1(directory.path(), &["cpu"]),
            v1(directory.path(), &["memory"]),
            v1(directory.path(), &["name=x"]),
        ];
        let allocatable = [("cpu".to_owned(), 2000), ("memory".to_owned(), 1 << 30)].into();
        let cgroups = PodCgroups::new(hierarchies, "/one/..", &allocatable);
        let limited = pod("g", json!({"limits": {"cpu": "500m", "memory": "64Mi"}}));
        let first = pod("b1", json!({"requests": {"cpu": "1"}}));
        let second = pod("b2", json!({"requests": {"cpu": "500m"}}));
        let nothing = pod("e", json!({}));
        for pod in [&limited, &first, &second, &nothing] {
            cgroups.ensure(pod).unwrap();
        }
        assert_eq!(cgroups.parent(&limited), "/one/kubepods/podg");
        assert_eq!(cgroups.parent(&first), "/one/kubepods/burstable/podb1");
        assert_eq!(cgroups.parent(&nothing), "/one/kubepods/besteffort/pode");
        let root = directory.path();
        assert_eq!(read(root.join("cpu/one/kubepods/cpu.shares")), "2048");
        assert_eq!(read(root.join("memory/one/kubepods/memory.limit_in_bytes")), "1073741824");
        assert_eq!(read(root.join("cpu/one/kubepods/podg/cpu.cfs_quota_us")), "50000");
        assert_eq!(read(root.join("memory/one/kubepods/podg/memory.limit_in_bytes")), "67108864");
        assert_eq!(read(root.join("cpu/one/kubepods/burstable/cpu.shares")), "1536");
        assert_eq!(read(root.join("cpu/one/kubepods/besteffort/pode/cpu.shares")), "2");
        assert!(!root.join("unified/one").exists() && !root.join("name=x").exists());
    }

    #[test]
    fn on_v2_controllers_are_enabled_on_the_way_down() {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path();
        // The kernel makes these files with each cgroup; here a test has to.
        for at in ["", "kubepods", "kubepods/burstable", "kubepods/besteffort", "kubepods/burstable/podu"] {
            fs::create_dir_all(mount.join(at)).unwrap();
            fs::write(mount.join(at).join("cgroup.controllers"), "cpu memory rdma").unwrap();
            fs::write(mount.join(at).join("cgroup.subtree_control"), "").unwrap();
        }
        let unified =
            Hierarchy { mount_point: mount.to_owned(), version: Version::V2, controllers: BTreeSet::new() };
        let cgroups = PodCgroups::new(vec![unified], "/", &Amounts::new());
        cgroups.ensure(&pod("u", json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Mi"}}))).unwrap();
        assert_eq!(read(mount.join("kubepods/cgroup.subtree_control")), "+cpu +memory");
        assert_eq!(read(mount.join("kubepods/burstable/podu/cpu.weight")), "39");
        assert_eq!(read(mount.join("kubepods/burstable/podu/memory.max")), "1048576");
    }

    #[test]
    fn a_pods_cgroup_goes_with_everything_below() {
        let directory = tempfile::tempdir().unwrap();
        let cgroups = PodCgroups::new(vec![v1(directory.path(), &["freezer"])], "/", &Amounts::new());
        let below = directory.path().join("freezer/kubepods/burstable/podu/container");
        fs::create_dir_all(&below).unwrap();
        cgroups.remove("u").unwrap();
        assert!(!directory.path().join("freezer/kubepods/burstable/podu").exists());
        assert!(directory.path().join("freezer/kubepods/burstable").exists());
        cgroups.remove("u").unwrap();
    }
}

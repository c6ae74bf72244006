//! Where cgroups are mounted.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// Which interface a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each set of controllers.
    V1,
    /// One for all.
    V2,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where.
    pub mount_point: PathBuf,
    /// Which interface.
    pub version: Version,
    /// Controllers of a v1 hierarchy. Those of v2 are in its file `cgroup.controllers`.
    pub controllers: BTreeSet<String>,
}

impl Hierarchy {
    /// Whether a v1 hierarchy has a controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains(controller)
    }
}

/// The hierarchies in the text of `/proc/self/mountinfo`; each once, the first mount of it. Source: proc(5).
pub fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else { continue };
        let Some(mount_point) = mount.split(' ').nth(4) else { continue };
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next(), file_system.nth(1).unwrap_or_default());
        let (version, controllers) = match kind {
            Some("cgroup2") => (Version::V2, BTreeSet::new()),
            Some("cgroup") => {
                let words = options.split(',').filter(|word| !is_flag(word));
                (Version::V1, words.map(str::to_owned).collect::<BTreeSet<_>>())
            }
            _ => continue,
        };
        if !found.iter().any(|known| known.version == version && known.controllers == controllers) {
            found.push(Hierarchy { mount_point: PathBuf::from(mount_point), version, controllers });
        }
    }
    found
}

/// Options of the file system that are no controllers.
fn is_flag(word: &str) -> bool {
    matches!(word, "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "cpuset_v2_mode")
        || word.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_hierarchies_are_found_with_their_controllers() {
        let text = "\
25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw
31 25 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 25 0:28 / /elsewhere/cpu rw - cgroup cgroup rw,cpu,cpuacct
";
        let found = hierarchies(text);
        let places: Vec<&str> = found.iter().filter_map(|h| h.mount_point.to_str()).collect();
        assert_eq!(
            places,
            ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"]
        );
        assert!(found[1].has("cpu") && found[1].has("cpuacct") && !found[1].has("rw"));
        assert_eq!(found[0].version, Version::V2);
    }
}

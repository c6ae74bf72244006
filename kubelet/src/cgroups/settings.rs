//! What is written into a cgroup's files.

use super::hierarchy::{Hierarchy, Version};
use crate::pod::linux_resources::{CPU_PERIOD_MICROSECONDS, PodResources};

/// Shares and limits of one cgroup. `None` leaves what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// CPU shares as v1 counts them.
    pub cpu_shares: Option<i64>,
    /// Microseconds of each period of 100 ms.
    pub cpu_quota: Option<i64>,
    /// Bytes.
    pub memory_bytes: Option<i64>,
}

impl From<&PodResources> for Settings {
    fn from(pod: &PodResources) -> Self {
        Self { cpu_shares: Some(pod.cpu_shares), cpu_quota: pod.cpu_quota, memory_bytes: pod.memory_bytes }
    }
}

/// The weight that v2 has for v1's shares. Source: KEP-2254.
pub fn cpu_weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Files and their content, in the order in which they are written.
pub fn files(hierarchy: &Hierarchy, settings: &Settings) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    let is_v2 = hierarchy.version == Version::V2;
    let has = |controller: &str| is_v2 || hierarchy.has(controller);
    if has("cpu") {
        if let Some(shares) = settings.cpu_shares {
            files.push(if is_v2 {
                ("cpu.weight", cpu_weight(shares).to_string())
            } else {
                ("cpu.shares", shares.to_string())
            });
        }
        if let Some(quota) = settings.cpu_quota {
            if is_v2 {
                files.push(("cpu.max", format!("{quota} {CPU_PERIOD_MICROSECONDS}")));
            } else {
                files.push(("cpu.cfs_period_us", CPU_PERIOD_MICROSECONDS.to_string()));
                files.push(("cpu.cfs_quota_us", quota.to_string()));
            }
        }
    }
    if has("memory")
        && let Some(bytes) = settings.memory_bytes
    {
        files.push((if is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, bytes.to_string()));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_files_for_the_same_limits() {
        let of = |version, controllers: &[&str]| Hierarchy {
            mount_point: "/".into(),
            version,
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        };
        let settings =
            Settings { cpu_shares: Some(1024), cpu_quota: Some(50_000), memory_bytes: Some(1 << 20) };
        let text = |hierarchy: &Hierarchy| {
            let files: Vec<String> = files(hierarchy, &settings)
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            files.join(" ")
        };
        assert_eq!(
            text(&of(Version::V1, &["cpu", "cpuacct"])),
            "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000"
        );
        assert_eq!(text(&of(Version::V1, &["memory"])), "memory.limit_in_bytes=1048576");
        assert_eq!(text(&of(Version::V1, &["name=systemd"])), "");
        assert_eq!(text(&of(Version::V2, &[])), "cpu.weight=39 cpu.max=50000 100000 memory.max=1048576");
        assert_eq!([2, 262_144].map(cpu_weight), [1, 10_000]);
    }
}

//! What the machine has, measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::error::Error;

/// Measurements of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Thousandths of a core.
    pub cpu_millicores: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system of the root directory.
    pub storage_bytes: i64,
    /// Bytes of huge pages that the kernel keeps, by size of the page in bytes.
    pub hugepages: BTreeMap<u64, i64>,
    /// Kernel release.
    pub kernel_version: String,
    /// Name of the operating system.
    pub os_image: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Id of this boot.
    pub boot_id: String,
    /// The firmware's id, or the machine id.
    pub system_uuid: String,
}

/// What is free at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Free {
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system of the root directory.
    pub storage_bytes: i64,
    /// Share of the file system, in hundredths.
    pub storage_percent: i64,
    /// Process ids.
    pub pids: i64,
}

impl Machine {
    /// Measures.
    pub fn measure(root_dir: &Path) -> Result<Self, Error> {
        let text =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let meminfo = fs::read_to_string("/proc/meminfo")
            .map_err(|source| Error::Machine { path: "/proc/meminfo", source })?;
        let machine_id = text("/etc/machine-id");
        let firmware = text("/sys/class/dmi/id/product_uuid");
        Ok(Self {
            cpu_millicores: i64::try_from(cores).unwrap_or(1) * 1000,
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
            storage_bytes: storage(root_dir).0,
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
            kernel_version: text("/proc/sys/kernel/osrelease"),
            os_image: os_image(&text("/etc/os-release")),
            architecture: architecture().to_owned(),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            system_uuid: if firmware.is_empty() { machine_id.clone() } else { firmware },
            machine_id,
        })
    }

    /// What is free now.
    pub fn free(root_dir: &Path) -> Free {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let (total, free) = storage(root_dir);
        let number =
            |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i64>().ok());
        let threads = fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| text.split('/').nth(1)?.split(' ').next()?.parse::<i64>().ok());
        Free {
            memory_bytes: meminfo_bytes(&meminfo, "MemAvailable").unwrap_or(i64::MAX),
            storage_bytes: free,
            storage_percent: if total > 0 { free.saturating_mul(100) / total } else { 100 },
            pids: number("/proc/sys/kernel/pid_max").unwrap_or(i64::MAX) - threads.unwrap_or(0),
        }
    }
}

/// The architecture as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Sizes are in the directories' names: `hugepages-2048kB`.
fn hugepages(directory: &Path) -> BTreeMap<u64, i64> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let kibibytes: u64 =
                name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            let bytes = i64::try_from(kibibytes * 1024).ok()?;
            Some((kibibytes * 1024, count.trim().parse::<i64>().ok()?.saturating_mul(bytes)))
        })
        .collect()
}

fn storage(path: &Path) -> (i64, i64) {
    let bytes = |blocks: u64, size: u64| i64::try_from(blocks.saturating_mul(size)).unwrap_or(i64::MAX);
    match rustix::fs::statvfs(path) {
        Ok(stat) => (bytes(stat.f_blocks, stat.f_frsize), bytes(stat.f_bavail, stat.f_frsize)),
        Err(_) => (0, 0),
    }
}

fn meminfo_bytes(meminfo: &str, name: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn os_image(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_machine_are_read() {
        assert_eq!(
            meminfo_bytes("MemTotal:       24641234 kB\nMemFree: 1 kB\n", "MemTotal"),
            Some(24_641_234 * 1024)
        );
        assert_eq!(meminfo_bytes("", "MemTotal"), None);
        let sizes = tempfile::tempdir().unwrap();
        let of = sizes.path().join("hugepages-2048kB");
        fs::create_dir(&of).unwrap();
        fs::write(of.join("nr_hugepages"), "3\n").unwrap();
        assert_eq!(hugepages(sizes.path()), [(2 << 20, 6 << 20)].into());
        assert_eq!(
            os_image("A=1\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        let machine = Machine::measure(Path::new("/")).unwrap();
        assert!(machine.cpu_millicores >= 1000 && machine.memory_bytes > 0 && machine.storage_bytes > 0);
    }
}

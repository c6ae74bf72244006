//! Room that directories take.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;

use super::model::FsStats;

/// Entries that are counted for one answer, over all pods; what is beyond is not counted.
pub(super) const MAX_ENTRIES: u64 = 500_000;

/// What a directory takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

/// Counts what is below a directory, on its own file system. Links are not followed. `budget` is the number of entries
/// that may still be looked at. Blocking.
pub(super) fn usage(root: &Path, budget: &mut u64) -> Usage {
    let Ok(top) = fs::symlink_metadata(root) else { return Usage::default() };
    let mut total = Usage { bytes: top.blocks().saturating_mul(512), inodes: 1 };
    let mut open: Vec<PathBuf> = if top.is_dir() { vec![root.to_owned()] } else { Vec::new() };
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if *budget == 0 {
                return total;
            }
            *budget -= 1;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != top.dev() {
                continue;
            }
            total += Usage { bytes: metadata.blocks().saturating_mul(512), inodes: 1 };
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    total
}

/// The file system that a path is on.
pub(super) fn file_system(path: &Path, time: Timestamp) -> Option<FsStats> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(FsStats {
        time,
        available_bytes: Some(bytes(stat.f_bavail)),
        capacity_bytes: Some(bytes(stat.f_blocks)),
        used_bytes: Some(bytes(stat.f_blocks.saturating_sub(stat.f_bfree))),
        inodes_free: Some(stat.f_ffree),
        inodes: Some(stat.f_files),
        inodes_used: Some(stat.f_files.saturating_sub(stat.f_ffree)),
    })
}

impl FsStats {
    /// The same file system, with somebody's part of it.
    pub(super) fn used_by(self, usage: Usage) -> Self {
        Self { used_bytes: Some(usage.bytes), inodes_used: Some(usage.inodes), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_what_its_files_take_and_no_more_is_looked_at_than_allowed() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        fs::write(directory.path().join("sub/file"), vec![1_u8; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("link")).unwrap();
        let mut budget = 100;
        let found = usage(directory.path(), &mut budget);
        assert!(found.bytes >= 100_000 && found.bytes < 1_000_000, "{found:?}");
        assert_eq!((found.inodes, budget), (4, 97));
        assert_eq!(usage(directory.path(), &mut 1).inodes, 2);
        assert_eq!(usage(&directory.path().join("none"), &mut 1), Usage::default());
        assert!(file_system(directory.path(), Timestamp::UNIX_EPOCH).unwrap().capacity_bytes > Some(0));
    }
}

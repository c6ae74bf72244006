//! Where the kernel's file systems are mounted.

use std::{
    io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// The mount points that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// The root of the cgroup v2 hierarchy: `/sys/fs/cgroup`, or where v1 is in use beside it, `/sys/fs/cgroup/unified`.
    pub(super) cgroup2: Option<PathBuf>,
    /// A file system that keeps maps and links beyond the life of a process.
    pub(super) bpf: Option<PathBuf>,
}

impl Mounts {
    /// What is mounted now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(super) fn read() -> io::Result<Self> {
        std::fs::read(Path::new("/proc/self/mounts")).map(|table| Self::parse(&table))
    }

    /// Read a table in the format of fstab(5). The first of a kind counts: later ones are those of containers.
    fn parse(table: &[u8]) -> Self {
        let mut mounts = Self::default();
        for line in table.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b' ');
            let (Some(_), Some(place), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            match kind {
                b"cgroup2" if mounts.cgroup2.is_none() => mounts.cgroup2 = Some(unescape(place)),
                b"bpf" if mounts.bpf.is_none() => mounts.bpf = Some(unescape(place)),
                _ => {}
            }
        }
        mounts
    }
}

/// Whether this is the root of all control groups, not that of a namespace: only the root of all has no type.
pub(super) fn is_whole_machine(cgroup: &Path) -> bool {
    !cgroup.join("cgroup.type").exists()
}

/// Whether this thread's network is another one than that of the machine's first process.
pub(super) fn is_network_apart() -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    // Who may not look at the first process may not load programs either.
    network("1").is_some_and(|first| network("thread-self") != Some(first))
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescape(place: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(place.len());
    let mut rest = place;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_points_are_found_in_every_hierarchy() {
        let table: [(&str, Option<&str>, Option<&str>); 4] = [
            (
                "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n",
                Some("/sys/fs/cgroup"),
                Some("/sys/fs/bpf"),
            ),
            (
                "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                 cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                 cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                 cgroup2 /run/a/rootfs/sys/fs/cgroup cgroup2 rw 0 0\n",
                Some("/sys/fs/cgroup/unified"),
                None,
            ),
            ("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\nshort\n", None, None),
            ("none /a\\040b\\134c bpf rw 0 0", None, Some("/a b\\c")),
        ];
        for (text, cgroup2, bpf) in table {
            let want = Mounts { cgroup2: cgroup2.map(PathBuf::from), bpf: bpf.map(PathBuf::from) };
            assert_eq!(Mounts::parse(text.as_bytes()), want, "{text}");
        }
    }
}

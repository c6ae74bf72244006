//! What a node that ended, or was killed, has left on its machine: found by what the kernel says, not by what a file
//! remembers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Programs that a node starts; another that has a file of the data directory open is somebody's editor.
const PROGRAMS: [&str; 4] = ["wherry", "containerd", "containerd-shim-runc-v2", "containerd-shim"];

/// How long processes have to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// How long the kernel has to end those that were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A process, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its parent.
    pub parent: i32,
    /// The program and its arguments.
    pub words: Vec<Vec<u8>>,
}

/// The processes that belong to the data directory: those of a node's programs that name it, and all that came from them.
pub fn processes_of(data_dir: &Path, all: &BTreeMap<i32, Process>) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> =
        all.iter().filter(|(_, process)| names(process, data_dir)).map(|(pid, _)| *pid).collect();
    // Containers are children of their shims, and have words of their own.
    loop {
        let before = found.len();
        let children = all.iter().filter(|(_, process)| found.contains(&process.parent)).map(|(pid, _)| *pid);
        found.extend(children.collect::<Vec<_>>());
        if found.len() == before {
            return found;
        }
    }
}

fn names(process: &Process, data_dir: &Path) -> bool {
    let Some((program, arguments)) = process.words.split_first() else { return false };
    let program = Path::new(std::ffi::OsStr::from_bytes(program)).file_name().and_then(|name| name.to_str());
    if !program.is_some_and(|program| PROGRAMS.contains(&program)) {
        return false;
    }
    let root = data_dir.as_os_str().as_bytes();
    arguments.iter().any(|word| {
        let at = word.windows(root.len().max(1)).position(|part| part == root);
        // The directory itself or something in it; not another whose name begins so, nor one with it inside.
        at.is_some_and(|at| {
            let before = &word[..at];
            let starts = before.is_empty() || before.ends_with(b"=") || before.ends_with(b"://");
            starts && matches!(word.get(at + root.len()), None | Some(b'/'))
        })
    })
}

/// The mount points below a directory, the innermost first, of a text such as `/proc/self/mountinfo`.
pub fn mounts_below(directory: &Path, mountinfo: &str) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    below
}

/// The kernel writes blanks and backslashes in octal.
fn unescape(text: &str) -> PathBuf {
    let (bytes, mut plain, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                plain.push(value);
                at += 4;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(plain).into()
}

/// All processes of this machine.
///
/// # Errors
/// `/proc` cannot be read.
pub fn read_processes() -> io::Result<BTreeMap<i32, Process>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // One that has ended since is none.
        let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
        let words =
            words.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect();
        all.insert(pid, Process { parent: parent.unwrap_or_default(), words });
    }
    Ok(all)
}

/// Ends the processes that belong to the data directory; how many there were.
///
/// # Errors
/// `/proc` cannot be read, or one does not end.
pub fn end_processes(data_dir: &Path) -> io::Result<usize> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let present = || -> io::Result<BTreeSet<i32>> {
        let mut found = processes_of(data_dir, &read_processes()?);
        found.remove(&own);
        Ok(found)
    };
    let first = present()?;
    for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, KILL_TIMEOUT)] {
        let started = Instant::now();
        let mut left = present()?;
        for pid in &left {
            match kill(Pid::from_raw(*pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while !left.is_empty() && started.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(20));
            left = present()?;
        }
        if left.is_empty() {
            return Ok(first.len());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("processes {:?} do not end", present()?)))
}

/// Unmounts everything below a directory; how much there was.
///
/// # Errors
/// The kernel refuses.
pub fn unmount_below(directory: &Path) -> io::Result<usize> {
    let points = mounts_below(directory, &fs::read_to_string("/proc/self/mountinfo")?);
    for point in &points {
        // Lazily: what still has a file open there keeps it until it ends.
        match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(points.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: i32, words: &str) -> Process {
        Process { parent, words: words.split(' ').map(|word| word.as_bytes().to_vec()).collect() }
    }

    #[test]
    fn the_programs_of_a_node_that_name_its_directory_are_its_own_with_their_children() {
        let all = BTreeMap::from([
            (10, process(1, "/usr/bin/wherry wasm-runtime --listen=unix:///var/lib/wherry/run/cri.sock")),
            (11, process(1, "/usr/bin/containerd --config /var/lib/wherry/containerd/config.toml")),
            (12, process(1, "/usr/bin/containerd-shim-runc-v2 -address /var/lib/wherry/run/c.sock")),
            (13, process(12, "/pause")),
            (14, process(13, "sleep 1")),
            (20, process(1, "vim /var/lib/wherry/kubeconfig.yaml")),
            (21, process(1, "/usr/bin/wherry up --data-dir /var/lib/wherry2")),
            (22, process(1, "/usr/bin/containerd")),
            (23, process(1, "wherry up --data-dir /mnt/var/lib/wherry")),
        ]);
        let found = processes_of(Path::new("/var/lib/wherry"), &all);
        assert_eq!(found, BTreeSet::from([10, 11, 12, 13, 14]));
    }

    #[test]
    fn mounts_are_undone_from_the_inside() {
        let mountinfo = "\
            36 35 0:1 / / rw - ext4 /dev/a rw\n\
            37 36 0:2 / /var/lib/wherry/pods/a rw shared:1 - tmpfs tmpfs rw\n\
            38 37 0:3 / /var/lib/wherry/pods/a/in\\040ner rw - tmpfs tmpfs rw\n\
            39 36 0:4 / /var/lib/wherry2/x rw - tmpfs tmpfs rw\n";
        let below = mounts_below(Path::new("/var/lib/wherry"), mountinfo);
        assert_eq!(below, [PathBuf::from("/var/lib/wherry/pods/a/in ner"), "/var/lib/wherry/pods/a".into()]);
    }
}

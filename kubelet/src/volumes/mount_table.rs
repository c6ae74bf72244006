//! What is mounted below a directory of this node, and how it is taken away again.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// The kernel's table of this process's mounts.
const TABLE: &str = "/proc/self/mountinfo";

/// Mount points at or below `directory`, the deepest (and of one place the latest) first.
pub fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(points_below(&std::fs::read(TABLE)?, directory))
}

/// The fifth field of each line is the mount point, with blanks and the like in octal. Source: proc(5).
fn points_below(table: &[u8], directory: &Path) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(OsString::from_vec(unescaped(point))))
        .filter(|point| point.starts_with(directory))
        .collect();
    // Later mounts stand later, and cover earlier ones.
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                out.push(u8::try_from(value).unwrap_or(b'?'));
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// Unmounts all there is at or below a directory without links. One that is in use goes when it is not any more. Idempotent.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    for point in mounts_below(directory)? {
        let flags = MntFlags::UMOUNT_NOFOLLOW;
        match umount2(&point, flags) {
            Err(nix::errno::Errno::EBUSY) => umount2(&point, flags | MntFlags::MNT_DETACH)?,
            // Gone already: unmounting what propagates takes others along.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_deepest_first() {
        let table = b"1 0 0:1 / / rw - ext4 /dev/root rw\n\
            2 1 0:2 / /pods/a rw - tmpfs tmpfs rw\n\
            3 2 0:3 / /pods/a/volumes/with\\040blank rw shared:1 - tmpfs tmpfs rw\n\
            4 1 0:4 / /pods/another rw - tmpfs tmpfs rw\n\
            5 2 0:5 / /pods/a/b rw - tmpfs tmpfs rw\n";
        let points = points_below(table, Path::new("/pods/a"));
        assert_eq!(
            points,
            [Path::new("/pods/a/volumes/with blank"), Path::new("/pods/a/b"), Path::new("/pods/a")]
        );
        assert!(points_below(table, Path::new("/pods/c")).is_empty());
    }
}

//! How much a directory that guests write to takes. Links are not followed, other file systems not entered.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;

/// Directories deeper than this are not entered: nobody makes them but to exhaust descriptors. Each level holds one.
const MAX_DEPTH: usize = 200;
/// Bytes of a block in `stat`. Source: POSIX on Linux.
const BLOCK_BYTES: u64 = 512;

/// The bytes that a directory takes on disk. Stops counting above `enough_bytes`. Blocking.
pub fn usage_bytes(directory: &Path, enough_bytes: u64) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat2(CWD, directory, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let mut total = 0;
    add(&root, &mut total, enough_bytes, 0)?;
    Ok(total)
}

fn add(directory: &OwnedFd, total: &mut u64, enough: u64, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("too many levels of directories"));
    }
    let mut inner: Vec<CString> = Vec::new();
    for entry in Dir::read_from(directory)? {
        if *total > enough {
            return Ok(());
        }
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone between the list and now.
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        // A file with several names counts once for all of them, by shares.
        let links = u64::from(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX)).max(1);
        let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        *total = total.saturating_add(blocks * BLOCK_BYTES / if is_directory { 1 } else { links });
        if is_directory {
            inner.push(name.to_owned());
        }
    }
    for name in inner {
        if *total > enough {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match openat2(directory, &name, flags, Mode::empty(), inside) {
            Ok(opened) => add(&opened, total, enough, depth + 1)?,
            // Gone, replaced, or another file system.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_counts_and_links_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (volume, outside) = (root.join("v"), root.join("outside"));
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("big"), vec![1; 4 << 20]).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        std::fs::write(volume.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(volume.join("a/b/file"), volume.join("second-name")).unwrap();
        let used = usage_bytes(&volume, u64::MAX).unwrap();
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
        assert!(usage_bytes(&root.join("v/link"), u64::MAX).is_err());
    }
}

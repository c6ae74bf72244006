//! Files that others may have had their hands on: opened without following a link, removed whatever their depth.
//!
//! The kubelet is root and the runtime holds the files of every pod, while guests write to some of the directories that both
//! use. A name in there must never lead elsewhere, and a tree in there may be as deep as a guest liked to make it.
//!
//! *Assumptions*: Linux 5.6 or newer (`openat2`).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, open, openat2, renameat, unlinkat};
use rustix::io::Errno;

/// Names read of a directory before they are removed.
const BATCH: usize = 1024;

/// Opens a regular file for reading. No part of the path may be a symbolic link, and nothing else than a file is waited for.
pub fn open_file(path: &Path) -> io::Result<File> {
    open_regular(path, OFlags::RDONLY)
}

/// Opens a regular file that exists for writing, emptied. No part of the path may be a symbolic link.
pub fn open_file_emptied(path: &Path) -> io::Result<File> {
    let file = open_regular(path, OFlags::WRONLY)?;
    file.set_len(0)?;
    Ok(file)
}

fn open_regular(path: &Path, access: OFlags) -> io::Result<File> {
    // Without NONBLOCK a FIFO in place of the file would hold the thread for ever.
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// A directory, held open so that its name can be given to what opens paths: see [`Held::path`].
#[derive(Debug)]
pub struct Held(OwnedFd);

impl Held {
    /// Holds a directory. No part of the path may be a symbolic link.
    pub fn directory(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?))
    }

    /// A path that leads to what is held and to nothing else, as long as it is held.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Removes a file or a directory with everything in it; nothing is done when it is not there.
///
/// *Guarantees*: links are removed, not followed; what is mounted below is refused; the depth of the tree costs neither stack
/// nor descriptors, because directories within directories are moved up before they are emptied.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = match open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let name = CString::new(name.as_encoded_bytes())?;
    if remove_one(&parent, &name)? {
        return Ok(());
    }
    let root = open_below(&parent, &name)?;
    let mut moved = 0_u64;
    loop {
        let names = some_names(&root)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if remove_one(&root, &name)? {
                continue;
            }
            let directory = open_below(&root, &name)?;
            empty_into(&directory, &root, &mut moved)?;
            remove_one(&root, &name)?;
        }
    }
    remove_one(&parent, &name)?;
    Ok(())
}

/// Removes what is in `directory`; its directories that are not empty go to `root` under names of our own.
fn empty_into(directory: &OwnedFd, root: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        let names = some_names(directory)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if remove_one(directory, &name)? {
                continue;
            }
            loop {
                *moved += 1;
                match renameat(directory, &name, root, format!("..removed-{moved}")) {
                    Ok(()) => break,
                    // A guest has used the name.
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// Removes a file or an empty directory; false when it is a directory with something in it.
fn remove_one(directory: &OwnedFd, name: &CString) -> io::Result<bool> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open_below(directory: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(openat2(directory, name, flags, Mode::empty(), inside)?)
}

fn some_names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
            if names.len() == BATCH {
                break;
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_are_opened_and_no_link_on_the_way_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/f"), "text").unwrap();
        symlink("d", root.join("to-d")).unwrap();
        symlink("d/f", root.join("to-f")).unwrap();
        rustix::fs::mknodat(CWD, root.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(io::read_to_string(open_file(&root.join("d/f")).unwrap()).unwrap(), "text");
        for bad in ["to-d/f", "to-f", "d", "fifo", "none"] {
            assert!(open_file(&root.join(bad)).is_err(), "{bad}");
            assert!(open_file_emptied(&root.join(bad)).is_err(), "{bad}");
        }
        assert!(Held::directory(&root.join("to-d")).is_err());
        let held = Held::directory(&root.join("d")).unwrap();
        std::fs::rename(root.join("d"), root.join("moved")).unwrap();
        assert_eq!(std::fs::read_to_string(held.path().join("f")).unwrap(), "text");
    }

    #[test]
    fn a_tree_deeper_than_a_path_can_be_is_removed_and_links_in_it_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, tree) = (directory.path().join("kept"), directory.path().join("tree"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "").unwrap();
        std::fs::create_dir(&tree).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        std::fs::create_dir_all(tree.join("..removed-1/used")).unwrap();
        let mut at = open(&tree, OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..2500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(&kept, &at, "l").unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(kept.join("file").exists());
        remove_tree(&tree).unwrap();
        remove_tree(&directory.path().join("none/at/all")).unwrap();
        symlink(&kept, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(kept.join("file").exists());
    }
}

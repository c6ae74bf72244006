//! Giving up privileges before the first guest runs.
//!
//! The runtime needs its directories, its socket's directory, and addresses to listen on. Started by root it makes the
//! directories, hands them to an unprivileged user, and becomes that user with one capability left:
//! `CAP_NET_BIND_SERVICE`, because guests may listen on ports below 1024. Started by anybody else it keeps what it is,
//! and gives up all the same what can be given up. Nothing it starts later can gain privileges (`no_new_privs`).

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chownat, fchown, openat, statat};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What to keep access to, and whom to become.
#[derive(Clone, Debug)]
pub struct Options {
    /// Handed to the user, with all that is in it.
    pub root_dir: PathBuf,
    /// The directory that the socket is made in; handed to the user itself, not what is in it.
    pub socket_dir: PathBuf,
    /// The user to become. Default 65532: what distroless images call `nonroot`; no account has it.
    pub uid: u32,
    /// The group to become. Default 65532.
    pub gid: u32,
}

impl Options {
    /// Options with the default user and group.
    pub fn new(root_dir: impl Into<PathBuf>, socket_dir: impl Into<PathBuf>) -> Self {
        Self { root_dir: root_dir.into(), socket_dir: socket_dir.into(), uid: 65532, gid: 65532 }
    }
}

/// A privilege that could not be given up, or a directory that could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory could not be made or handed over.
    #[error("cannot prepare {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused a step.
    #[error("cannot {step}")]
    Step {
        /// Which step.
        step: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What the process is afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The user that the process is.
    pub uid: u32,
    /// Whether ports below 1024 can be listened on.
    pub low_ports: bool,
}

/// Prepares the directories, then gives up every privilege that guests' host does not need. Call it before any other
/// thread exists: Linux keeps privileges per thread, and only user and group are changed for all of them.
///
/// *Errors*: a step failed; the process must not go on, it may be half privileged.
pub fn drop_privileges(options: &Options) -> Result<Dropped, Error> {
    for directory in [&options.root_dir, &options.socket_dir] {
        make_directory(directory)?;
    }
    // Descriptors are what 10,000 listening pods need most.
    raise_descriptor_limit();
    if !nix::unistd::geteuid().is_root() {
        no_new_privileges()?;
        let low_ports = has_bind_service();
        return Ok(Dropped { uid: nix::unistd::geteuid().as_raw(), low_ports });
    }
    hand_over(&options.root_dir, options, Depth::All)?;
    hand_over(&options.socket_dir, options, Depth::Itself)?;
    let step = |step: &'static str| move |error: nix::Error| Error::Step { step, source: error.into() };
    let (uid, gid) = (Uid::from_raw(options.uid), Gid::from_raw(options.gid));
    // Capabilities survive the change of user only when asked for, and then only the permitted set does.
    let low_ports = has_bind_service();
    rustix::thread::set_keep_capabilities(low_ports)
        .map_err(|errno| Error::Step { step: "keep capabilities", source: errno.into() })?;
    nix::unistd::setgroups(&[]).map_err(step("leave supplementary groups"))?;
    nix::unistd::setresgid(gid, gid, gid).map_err(step("change the group"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(step("change the user"))?;
    let kept = if low_ports { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    rustix::thread::set_capabilities(None, sets)
        .map_err(|errno| Error::Step { step: "give up capabilities", source: errno.into() })?;
    if low_ports {
        let ambient =
            rustix::thread::configure_capability_in_ambient_set(CapabilitySet::NET_BIND_SERVICE, true);
        ambient.map_err(|errno| Error::Step { step: "keep CAP_NET_BIND_SERVICE", source: errno.into() })?;
    }
    no_new_privileges()?;
    Ok(Dropped { uid: options.uid, low_ports })
}

fn no_new_privileges() -> Result<(), Error> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| Error::Step { step: "set no_new_privs", source: errno.into() })
}

fn has_bind_service() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.permitted.contains(CapabilitySet::NET_BIND_SERVICE))
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Failing leaves fewer descriptors, which is no reason not to start.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(|source| Error::Directory { path: path.to_owned(), source })
}

#[derive(Clone, Copy, PartialEq)]
enum Depth {
    Itself,
    All,
}

/// Directories below the runtime's own that are handed over. Its own files are not as deep; what guests made may be.
const MAX_DEPTH: usize = 16;

/// Changes the owner of what is not yet the user's, without following a link in there: the user may have put it there.
fn hand_over(path: &Path, options: &Options, depth: Depth) -> Result<(), Error> {
    let failed = |errno: Errno| Error::Directory { path: path.to_owned(), source: errno.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let owner = (rustix::fs::Uid::from_raw(options.uid), rustix::fs::Gid::from_raw(options.gid));
    fchown(&directory, Some(owner.0), Some(owner.1)).map_err(failed)?;
    if depth == Depth::All { hand_over_content(&directory, owner, MAX_DEPTH).map_err(failed) } else { Ok(()) }
}

type Owner = (rustix::fs::Uid, rustix::fs::Gid);

fn hand_over_content(directory: &OwnedFd, owner: Owner, depth: usize) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let is_theirs = found.st_uid == owner.0.as_raw() && found.st_gid == owner.1.as_raw();
        // A file with a second name may be anybody's.
        if !is_theirs && (is_directory || found.st_nlink == 1) {
            chownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if is_directory && depth > 0 {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = openat(directory, name, flags, Mode::empty())?;
            hand_over_content(&below, owner, depth - 1)?;
        }
    }
    Ok(())
}

//! Where a cluster keeps its files, and the lock that keeps a second process out.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

/// The files of one cluster.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

/// Held as long as a process uses the data directory.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no home directory to put it under.
    #[error("HOME is not set; say --data-dir")]
    NoHome,
    /// It cannot be made or read.
    #[error("cannot use the data directory {}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could change what is in it.
    #[error(
        "the data directory {} belongs to user {owner} and has mode {mode:04o}; it must be this user's, and no others may write to it",
        path.display()
    )]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// Whose.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process uses it.
    #[error(
        "the data directory {} is in use by {owner}; stop that one, or choose another with --data-dir (and another --listen)",
        path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
        /// `process 123`, as far as it is known.
        owner: String,
    },
}

impl DataDir {
    /// `path`, or the default: `/var/lib/wherry` for root, `~/.local/share/wherry` for everybody else.
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn new(path: Option<PathBuf>) -> Result<Self, Error> {
        let root = match path {
            Some(path) => path,
            None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/wherry"),
            None => match std::env::var_os("XDG_DATA_HOME") {
                Some(data) if Path::new(&data).is_absolute() => PathBuf::from(data).join("wherry"),
                _ => {
                    PathBuf::from(std::env::var_os("HOME").ok_or(Error::NoHome)?).join(".local/share/wherry")
                }
            },
        };
        let root = std::path::absolute(&root).map_err(|source| Error::Unusable { path: root, source })?;
        Ok(Self { root })
    }

    /// Make the directory, passable for the runtime's unprivileged user, and keep other processes out.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Unusable`].
    pub fn lock(&self, what: &str) -> Result<Lock, Error> {
        let unusable = |source| Error::Unusable { path: self.root.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(&self.root).map_err(unusable)?;
        self.check_owner()?;
        DirBuilder::new().recursive(true).mode(0o755).create(self.run()).map_err(unusable)?;
        let path = self.run().join(format!("{what}.lock"));
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(unusable)?;
        let mut owner = String::new();
        file.read_to_string(&mut owner).map_err(unusable)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, _)) => {
                let owner = owner.trim();
                let owner =
                    if owner.is_empty() { "another process".to_owned() } else { format!("process {owner}") };
                return Err(Error::InUse { path: self.root.clone(), owner });
            }
        };
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(unusable)?;
        Ok(Lock { _file: file })
    }

    /// Keys are below, and (as root) files that are trusted as root's own.
    fn check_owner(&self) -> Result<(), Error> {
        let path = &self.root;
        let metadata = fs::metadata(path).map_err(|source| Error::Unusable { path: path.clone(), source })?;
        let is_ours = metadata.uid() == nix::unistd::geteuid().as_raw();
        // A umask of 002 goes with a group of one's own.
        let is_own_group = metadata.gid() == nix::unistd::getegid().as_raw();
        if is_ours && metadata.mode() & if is_own_group { 0o002 } else { 0o022 } == 0 {
            return Ok(());
        }
        Err(Error::Unsafe { path: path.clone(), owner: metadata.uid(), mode: metadata.mode() & 0o7777 })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The embedded store's file.
    pub fn store(&self) -> PathBuf {
        self.root.join("state.redb")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig.yaml")
    }

    /// Sockets and locks of running processes.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The kubelet's directory: pods' volumes.
    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// Containers' logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The Wasm runtime's directory: images, compiled code, state.
    pub fn wasm(&self) -> PathBuf {
        self.root.join("wasm")
    }

    /// The socket on which the Wasm runtime serves CRI, in a directory of its own: its unprivileged user makes it there.
    pub fn wasm_socket(&self) -> PathBuf {
        self.run().join("wasm").join("cri.sock")
    }

    /// The CNI configuration of our own pod network; the only file there that names it is for the container runtime.
    pub fn cni_config(&self) -> PathBuf {
        self.root.join("cni").join("net.d")
    }

    /// Which pod has which address, as CNI's `host-local` keeps it.
    pub fn cni_state(&self) -> PathBuf {
        self.root.join("cni").join("ipam")
    }

    /// Our own containerd's images and snapshots.
    pub fn containerd_root(&self) -> PathBuf {
        self.root.join("containerd")
    }

    /// Our own containerd's state, configuration and log.
    pub fn containerd_state(&self) -> PathBuf {
        self.run().join("containerd")
    }

    /// Where our own containerd answers.
    pub fn containerd_socket(&self) -> PathBuf {
        self.containerd_state().join("c.sock")
    }

    /// The kubeconfig, if a cluster has written it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_kubeconfig(&self) -> io::Result<String> {
        fs::read_to_string(self.kubeconfig())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = DataDir::new(Some(temporary.path().join("d"))).unwrap();
        let held = directory.lock("up").unwrap();
        let error = directory.lock("up").unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(held);
        directory.lock("up").unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let directory = DataDir::new(Some(temporary.path().to_owned())).unwrap();
        for (mode, usable) in [(0o755, true), (0o700, true), (0o775, true), (0o757, false), (0o1777, false)] {
            fs::set_permissions(temporary.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(directory.lock("up").is_ok(), usable, "{mode:o}");
        }
    }
}

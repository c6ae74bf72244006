//! The store: blobs, index, lock.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::index::Index;
use super::ingest::{Ingested, read_small};
use super::reference::is_digest;
use super::{Error, ImageRecord};

/// The largest index, in bytes: some hundred thousand images.
const MAX_INDEX_BYTES: u64 = 256 << 20;

/// Images in a directory. Cheap to clone; several processes may use one directory.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
}

/// The right to change the store, until dropped.
pub(crate) struct Writing {
    // Closing the file gives the lock back.
    _lock: File,
}

impl ImageStore {
    /// Opens the store in `root`, making what is missing.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for directory in [root.join("blobs/sha256"), root.join("ingest")] {
            std::fs::create_dir_all(&directory).map_err(Error::file("make", directory))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// All images.
    pub fn list(&self) -> Result<Vec<ImageRecord>, Error> {
        Ok(self.index()?.images)
    }

    /// The image of that name, digest or id.
    pub fn find(&self, wanted: &str) -> Result<Option<ImageRecord>, Error> {
        Ok(self.index()?.find(wanted).cloned())
    }

    /// Takes a name away (and the image, when it was its last name); by id or digest: the image with all its names.
    /// Answers whether there was something to take away.
    pub fn remove(&self, wanted: &str) -> Result<bool, Error> {
        self.change(|index| index.remove_name(wanted))
    }

    /// Takes the image away with all its names.
    pub fn remove_image(&self, wanted: &str) -> Result<bool, Error> {
        self.change(|index| index.remove_image(wanted))
    }

    /// The file of a blob, whether or not it is there.
    pub fn blob_path(&self, digest: &str) -> Result<PathBuf, Error> {
        if !is_digest(digest) {
            return Err(Error::Name { name: digest.to_owned(), why: "it is not a digest" });
        }
        Ok(self.root.join("blobs").join(digest.replace(':', "/")))
    }

    /// Bytes and files of all blobs.
    pub fn usage(&self) -> Result<(u64, u64), Error> {
        let mut usage = (0, 0);
        for blob in self.blobs()? {
            usage.0 += std::fs::metadata(&blob).map_or(0, |metadata| metadata.len());
            usage.1 += 1;
        }
        Ok(usage)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn ingest_dir(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// Waits for the lock. Blocking: only file operations are ever done under it.
    pub(crate) fn write(&self) -> Result<Writing, Error> {
        let path = self.root.join("lock");
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(_) => File::create(&path).map_err(Error::file("make", &path))?,
        };
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| Error::file("lock", &path)(errno.into()))?;
        Ok(Writing { _lock: lock })
    }

    /// Makes an ingested file a blob.
    pub(crate) fn keep(&self, _: &Writing, ingested: Ingested) -> Result<(), Error> {
        let path = self.blob_path(&ingested.digest)?;
        std::fs::set_permissions(ingested.file.path(), std::fs::Permissions::from_mode(0o644))
            .map_err(Error::file("set the mode of", ingested.file.path()))?;
        ingested.file.as_file().sync_all().map_err(Error::file("sync", &path))?;
        ingested.file.persist(&path).map_err(|error| Error::file("write", &path)(error.error))?;
        Ok(())
    }

    /// Puts a record into the index, replacing the index in one rename.
    pub(crate) fn put(&self, writing: &Writing, record: ImageRecord) -> Result<ImageRecord, Error> {
        let mut index = self.index()?;
        let record = index.put(record);
        self.replace_index(writing, &index)?;
        Ok(record)
    }

    fn change(&self, change: impl FnOnce(&mut Index) -> bool) -> Result<bool, Error> {
        let writing = self.write()?;
        let mut index = self.index()?;
        if !change(&mut index) {
            return Ok(false);
        }
        self.replace_index(&writing, &index)?;
        // After the index: a blob that nothing names is waste, a name without its blob would be a fault.
        for blob in self.blobs()? {
            let name = blob.file_name().map(|name| format!("sha256:{}", name.to_string_lossy()));
            let used = index
                .images
                .iter()
                .any(|i| Some(&i.wasm_digest) == name.as_ref() || Some(&i.id) == name.as_ref());
            if !used {
                let _ = std::fs::remove_file(blob);
            }
        }
        Ok(true)
    }

    fn blobs(&self) -> Result<Vec<PathBuf>, Error> {
        let directory = self.root.join("blobs/sha256");
        let entries = std::fs::read_dir(&directory).map_err(Error::file("list", &directory))?;
        Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
    }

    fn index(&self) -> Result<Index, Error> {
        let path = self.root.join("index.json");
        match read_small(&path, MAX_INDEX_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| Error::Json { what: path.display().to_string(), source }),
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Index::default())
            }
            Err(error) => Err(error),
        }
    }

    fn replace_index(&self, _: &Writing, index: &Index) -> Result<(), Error> {
        let path = self.root.join("index.json");
        let bytes = serde_json::to_vec(index)
            .map_err(|source| Error::Json { what: path.display().to_string(), source })?;
        let ingested =
            super::ingest::ingest(&self.ingest_dir(), "index", &mut bytes.as_slice(), MAX_INDEX_BYTES)?;
        std::fs::set_permissions(ingested.file.path(), std::fs::Permissions::from_mode(0o644))
            .map_err(Error::file("set the mode of", ingested.file.path()))?;
        ingested.file.as_file().sync_all().map_err(Error::file("sync", &path))?;
        ingested.file.persist(&path).map_err(|error| Error::file("write", &path)(error.error))?;
        // The rename is durable once the directory is.
        if let Ok(directory) = File::open(&self.root) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

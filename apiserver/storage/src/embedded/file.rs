//! The durable form: a redb file with one row for each key and the revision counter.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use crate::state::Stored;
use crate::{Error, Event, Key, Revision};

/// A key's row: its mod revision in eight bytes, little endian, then the value.
const ROWS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// The revision of the last commit: never goes back, so that no revision is used twice.
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Grows when older code could not read the file.
const FORMAT_VERSION: u64 = 1;
/// As etcd's empty store.
const FIRST_REVISION: Revision = 1;

const REVISION_BYTES: usize = size_of::<Revision>();

/// Opens the database, at the start and again after a failure.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, Error> + Send>;

/// The file, open or to be opened again.
pub(super) struct File {
    /// `None` after a failed commit: redb refuses further writes until the file is opened anew.
    database: Option<Database>,
    opener: Opener,
}

/// What the file holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) live: BTreeMap<Key, Stored>,
    pub(super) revision: Revision,
}

impl File {
    /// Open the file at this path; make it first if it is not there.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, Error> {
        if !path.try_exists().map_err(|error| Error::disk("looking for it", error))? {
            create(path, cache_bytes)?;
        }
        let path = path.to_owned();
        Self::with_opener(Box::new(move || open(&path, cache_bytes)))
    }

    /// Memory in the place of the disk.
    pub(super) fn in_memory(cache_bytes: usize) -> Result<Self, Error> {
        Self::with_opener(Box::new(move || {
            let database = Builder::new()
                .set_cache_size(cache_bytes)
                .create_with_backend(redb::backends::InMemoryBackend::new())
                .map_err(|error| Error::disk("making it in memory", error))?;
            initialise(&database)?;
            Ok(database)
        }))
    }

    pub(super) fn with_opener(opener: Opener) -> Result<Self, Error> {
        let database = Some(guarded("opening", &opener)?);
        Ok(Self { database, opener })
    }

    /// Read all rows.
    pub(super) fn load(&self) -> Result<Loaded, Error> {
        guarded("reading", || load(self.database()?))
    }

    /// Make the last changes of some keys, and the revision, durable. All or nothing; after an error it is not known which,
    /// until [`File::reopen`].
    pub(super) fn commit(&mut self, rows: &BTreeMap<&Key, &Event>, revision: Revision) -> Result<(), Error> {
        let committed = guarded("writing", || {
            commit(self.database()?, rows, revision).map_err(|error| Error::disk("writing it", error))
        });
        if committed.is_err() {
            self.database = None;
        }
        committed
    }

    /// Open the file again after a failed commit, and tell its revision.
    pub(super) fn reopen(&mut self) -> Result<Revision, Error> {
        // Two open handles would exclude each other.
        self.database = None;
        let database = guarded("opening again", &self.opener)?;
        let revision = guarded("reading", || read_revision(&database))?;
        self.database = Some(database);
        Ok(revision)
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or(Error::Closed)
    }
}

/// redb answers damage with errors, as far as is known; a panic of it must not take the server along.
fn guarded<T>(action: &'static str, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Error::disk(action, Panicked(panic_text(panic.as_ref())))))
}

/// The file's own code panicked.
#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
struct Panicked(String);

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

/// Make the file whole under another name first: a crash on the way never leaves a file that is half made.
fn create(path: &Path, cache_bytes: usize) -> Result<(), Error> {
    let making = |error: std::io::Error| Error::disk("making it", error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(making)?;
    let unfinished = with_suffix(path, &format!(".{}.new", std::process::id()));
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        // It holds Secrets.
        .mode(0o600)
        .open(&unfinished)
        .map_err(making)?;
    let database = Builder::new()
        .set_cache_size(cache_bytes)
        .create_file(file)
        .map_err(|error| database_error(error, &unfinished))?;
    initialise(&database)?;
    drop(database);
    // A link, unlike a rename, leaves a file alone that another process made in the meantime.
    let linked = match fs::hard_link(&unfinished, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    fs::remove_file(&unfinished).map_err(making)?;
    linked.map_err(making)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(making)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    PathBuf::from(text)
}

fn open(path: &Path, cache_bytes: usize) -> Result<Database, Error> {
    let was_repaired = Arc::new(AtomicBool::new(false));
    let repair = Arc::clone(&was_repaired);
    let mut database = Builder::new()
        .set_cache_size(cache_bytes)
        .set_repair_callback(move |_| repair.store(true, Ordering::Relaxed))
        .open(path)
        .map_err(|error| database_error(error, path))?;
    // Reads every page once and compares checksums: damage is found now, and not by a reader months later. The repair of a
    // file that was not closed does so, too.
    if !was_repaired.load(Ordering::Relaxed) {
        database.check_integrity().map_err(|error| database_error(error, path))?;
    }
    Ok(database)
}

fn database_error(error: DatabaseError, path: &Path) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::InUse { path: path.to_owned() },
        error => Error::disk("opening it", error),
    }
}

/// The rows and counters of an empty store.
pub(super) fn initialise(database: &Database) -> Result<(), Error> {
    let run = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(ROWS)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT, FORMAT_VERSION)?;
            meta.insert(REVISION, FIRST_REVISION)?;
        }
        Ok(transaction.commit()?)
    };
    run().map_err(|error| Error::disk("making it", error))
}

fn commit(database: &Database, rows: &BTreeMap<&Key, &Event>, revision: Revision) -> Result<(), redb::Error> {
    // Durability is immediate by default: `commit` returns after the sync.
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ROWS)?;
        for (key, event) in rows {
            let Some(value) = &event.value else {
                table.remove(key.as_str())?;
                continue;
            };
            let mut row = table.insert_reserve(key.as_str(), REVISION_BYTES + value.len())?;
            let (head, tail) = row.as_mut().split_at_mut(REVISION_BYTES);
            head.copy_from_slice(&event.revision.to_le_bytes());
            tail.copy_from_slice(value);
        }
        transaction.open_table(META)?.insert(REVISION, revision)?;
    }
    Ok(transaction.commit()?)
}

fn read_revision(database: &Database) -> Result<Revision, Error> {
    let run = || -> Result<(Option<u64>, Option<u64>), redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|found| found.value()));
        Ok((number(FORMAT)?, number(REVISION)?))
    };
    match run().map_err(|error| Error::disk("reading it", error))? {
        (Some(FORMAT_VERSION), Some(revision)) => Ok(revision),
        (Some(FORMAT_VERSION), None) => Err(Error::damaged("its revision is missing".to_owned())),
        (format, _) => Err(Error::damaged(format!("its format is {format:?}, not {FORMAT_VERSION}"))),
    }
}

fn load(database: &Database) -> Result<Loaded, Error> {
    let revision = read_revision(database)?;
    let reading = |error: redb::Error| Error::disk("reading it", error);
    let table = database
        .begin_read()
        .map_err(redb::Error::from)
        .and_then(|transaction| transaction.open_table(ROWS).map_err(redb::Error::from))
        .map_err(reading)?;
    let mut live = BTreeMap::new();
    for row in table.iter().map_err(|error| reading(error.into()))? {
        let (key, row) = row.map_err(|error| reading(error.into()))?;
        let stored = stored(row.value())
            .filter(|stored| stored.mod_revision <= revision)
            .ok_or_else(|| Error::damaged(format!("the row of {} cannot be", key.value())))?;
        live.insert(Key::from_stored(key.value()), stored);
    }
    let count = table.len().map_err(|error| reading(error.into()))?;
    if count != live.len() as u64 {
        return Err(Error::damaged(format!("it has {} of {count} rows", live.len())));
    }
    Ok(Loaded { live, revision })
}

fn stored(row: &[u8]) -> Option<Stored> {
    let (head, value) = row.split_first_chunk::<REVISION_BYTES>()?;
    Some(Stored { value: Bytes::copy_from_slice(value), mod_revision: Revision::from_le_bytes(*head) })
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("open", &self.database.is_some()).finish_non_exhaustive()
    }
}

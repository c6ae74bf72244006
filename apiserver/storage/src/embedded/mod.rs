//! The embedded store: the state in memory, made durable by one file.
//!
//! Flow of a write: [`Embedded::transact`] hands it to the writer thread through a bounded queue; the writer takes all that
//! wait, decides them against the state (`batch`), writes those that hold in one synced transaction of the file (`file`),
//! publishes them to readers and watchers (`view`), and only then answers. Reads and watches never touch the file.
//!
//! History is not in the file: after a restart, watchers and readers of an older revision are told `Compacted` and start anew.

mod batch;
mod file;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::state::{HistoryLimits, State};
use crate::view::View;
use crate::{
    Change, Error, Expected, Key, KeyValue, Outcome, Prefix, Range, RangeResult, Revision, Store, WatchStream,
};
use batch::Proposal;
use file::File;
use writer::{Request, Writer};

/// How many writes may wait for the writer; further callers wait before they queue.
const QUEUE: usize = 4096;

/// What can be set about the embedded store.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much history is kept.
    pub history: HistoryLimits,
    /// The largest value; etcd's default is 1.5 MiB.
    pub value_limit_bytes: usize,
    /// What the file's page cache may take. Rows are read once, at the start, so it serves the writer's inner pages only.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: HistoryLimits::default(),
            value_limit_bytes: crate::VALUE_LIMIT_BYTES,
            cache_bytes: 4 << 20,
        }
    }
}

/// The store of a single server.
#[derive(Debug)]
pub struct Embedded {
    view: Arc<View>,
    /// `None` once closed.
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    /// `None` once joined.
    writer: Mutex<Option<JoinHandle<()>>>,
    value_limit_bytes: usize,
}

impl Embedded {
    /// Open the store's file, or make it. Reads the whole file: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it open, [`Error::Disk`] if it cannot be read or is damaged.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        Self::start(File::open(path, options.cache_bytes)?, options)
    }

    /// A store that is gone when it is closed: the same code over memory in place of the file.
    ///
    /// # Errors
    /// [`Error::Disk`] if the memory cannot be had.
    pub fn in_memory(options: Options) -> Result<Self, Error> {
        Self::start(File::in_memory(options.cache_bytes)?, options)
    }

    fn start(file: File, options: Options) -> Result<Self, Error> {
        let loaded = file.load()?;
        let view = View::new(State::new(loaded.live, loaded.revision, options.history));
        let (sender, requests) = mpsc::channel(QUEUE);
        let writer = Writer::new(file, Arc::clone(&view), requests);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| Error::disk("starting its writer", error))?;
        Ok(Self {
            view,
            requests: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
            value_limit_bytes: options.value_limit_bytes,
        })
    }

    fn sender(&self) -> Result<mpsc::Sender<Request>, Error> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)
    }

    /// Refuse new writes and hand over the writer, which ends after those that it has.
    fn stop(&self) -> Option<JoinHandle<()>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.view.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn revision(&self) -> Result<Revision, Error> {
        self.check_open()?;
        Ok(self.view.read().revision())
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyValue>, Error> {
        self.check_open()?;
        Ok(self.view.read().key_value(key))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.check_open()?;
        self.view.read().range(&range)
    }

    async fn transact(&self, key: &Key, expected: Expected, change: Change) -> Result<Outcome, Error> {
        change.check_size(key, self.value_limit_bytes)?;
        let (answer, answered) = oneshot::channel();
        let request = Request { proposal: Proposal { key: key.clone(), expected, change }, answer };
        self.sender()?.send(request).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<WatchStream, Error> {
        self.check_open()?;
        self.view.read().check_readable(after)?;
        Ok(self.view.watch(prefix.clone(), after))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.check_open()?;
        let current = self.view.read().revision();
        if revision > current {
            return Err(Error::Future { requested: revision, current });
        }
        self.view.compact(revision);
        Ok(())
    }

    async fn close(&self) {
        if let Some(writer) = self.stop() {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the store's writer ended by a panic");
            }
        }
        self.view.close();
    }
}

impl Drop for Embedded {
    /// As [`Store::close`], for those who did not call it: the file is free for the next owner afterwards.
    fn drop(&mut self) {
        if let Some(writer) = self.stop()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer ended by a panic");
        }
        self.view.close();
    }
}

//! etcd as the store of several servers.
//!
//! Writes and linearizable reads go to etcd. One watch over everything (`feed`) keeps the same state in memory as the embedded
//! store has; all watchers, and readers of revisions that it covers, are served from there. A write is therefore seen by
//! watchers a moment after it is answered, in the order of revisions.
//!
//! Whether a write took effect is unknown after [`Error::Etcd`]: read the key before trying again.
//!
//! etcd up to 3.4.37 can lose events of watches that begin next to the compaction revision, and can answer progress requests
//! too early. Hence: no progress requests, a watch begins only where we read or were a short while ago, what comes at or below
//! the last revision seen is dropped, and the state is compared with a range of all keys at times.

mod compaction;
mod connection;
mod feed;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::state::{HistoryLimits, State};
use crate::view::View;
use crate::{
    Change, Error, Expected, Key, KeyValue, Outcome, Prefix, Range, RangeResult, Revision, Store, WatchStream,
};
use connection::Connection;
use feed::Feed;

/// What can be set about the use of etcd.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much history is kept in this process.
    pub history: HistoryLimits,
    /// The largest value; etcd's own default limit for a request is 1.5 MiB.
    pub value_limit_bytes: usize,
    /// How long etcd may take for one request.
    pub request_timeout: Duration,
    /// How often etcd's history before the last interval is compacted, by one of the servers, and the state compared with
    /// etcd's; Kubernetes' default is five minutes.
    pub compaction_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: HistoryLimits::default(),
            value_limit_bytes: crate::VALUE_LIMIT_BYTES,
            request_timeout: Duration::from_secs(10),
            compaction_interval: Duration::from_secs(5 * 60),
        }
    }
}

/// How to trust etcd's servers and be trusted by them; all in PEM.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// The authorities that sign the servers' certificates.
    pub ca_pem: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the servers' certificates, if it is not the endpoint's.
    pub server_name: Option<String>,
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca_pem.is_some())
            .field("identity", &self.identity_pem.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

/// The store of several servers.
#[derive(Debug)]
pub struct Etcd {
    connection: Connection,
    view: Arc<View>,
    options: Options,
    stop: CancellationToken,
    /// The feed and the compaction; they end when this is dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl Etcd {
    /// Connect, read everything, and follow the changes from there on. Endpoints are URLs, `https` with TLS options.
    ///
    /// # Errors
    /// [`Error::Etcd`] if no endpoint answers or an option cannot be used.
    pub async fn connect(
        endpoints: &[String],
        tls: Option<TlsOptions>,
        options: Options,
    ) -> Result<Self, Error> {
        let connection = Connection::new(endpoints, tls, options.request_timeout).await?;
        let (live, revision) = connection.read_all().await?;
        let view = View::new(State::new(live, revision, options.history));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let feed = Feed::new(connection.clone(), Arc::clone(&view), options);
        tasks.spawn(stop.clone().run_until_cancelled_owned(feed.run()).map_ended());
        let compaction = compaction::run(connection.clone(), options.compaction_interval);
        tasks.spawn(stop.clone().run_until_cancelled_owned(compaction).map_ended());
        Ok(Self { connection, view, options, stop, tasks: Mutex::new(tasks) })
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.view.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// The state in memory answers if it covers the revision: what was at a revision does not change.
    fn range_in_memory(&self, range: &Range) -> Option<RangeResult> {
        range.revision?;
        self.view.read().range(range).ok()
    }
}

/// A task that was stopped or ended has nothing to say.
trait MapEnded: Future + Sized {
    fn map_ended(self) -> impl Future<Output = ()> {
        futures::FutureExt::map(self, |_| ())
    }
}

impl<F: Future> MapEnded for F {}

#[async_trait]
impl Store for Etcd {
    async fn revision(&self) -> Result<Revision, Error> {
        self.check_open()?;
        self.connection.revision().await
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyValue>, Error> {
        self.check_open()?;
        self.connection.get(key).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.check_open()?;
        match self.range_in_memory(&range) {
            Some(result) => Ok(result),
            None => self.connection.range(&range).await,
        }
    }

    async fn transact(&self, key: &Key, expected: Expected, change: Change) -> Result<Outcome, Error> {
        self.check_open()?;
        change.check_size(key, self.options.value_limit_bytes)?;
        if expected == Expected::Absent && change == Change::Delete {
            // Never a change; etcd would take a revision for it.
            return Ok(Outcome::Conflict { current: self.get(key).await? });
        }
        self.connection.transact(key, expected, change).await
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<WatchStream, Error> {
        self.check_open()?;
        let readable = self.view.read().check_readable(after);
        match readable {
            // Changes of keys that are not ours take revisions of which the feed does not hear.
            Err(Error::Future { requested, .. }) => {
                let current = self.connection.revision().await?;
                if requested > current {
                    return Err(Error::Future { requested, current });
                }
            }
            readable => readable?,
        }
        Ok(self.view.watch(prefix.clone(), after))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.check_open()?;
        self.connection.compact(revision).await?;
        self.view.compact(revision);
        Ok(())
    }

    async fn close(&self) {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        self.view.close();
    }
}

//! Requests to etcd in the store's terms.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, GetResponse, Identity, KvClient,
    ResponseHeader, Txn, TxnOp, TxnOpResponse, WatchClient, WatchOptions, WatchStream,
};

use super::TlsOptions;
use crate::state::Stored;
use crate::{Change, Error, Expected, Key, KeyValue, Outcome, Prefix, Range, RangeResult, Revision};

/// How many keys are read at once; at 1.5 MiB each they still fit into the message limit.
const PAGE_KEYS: usize = 500;

/// The largest message from etcd that is decoded. A watch response carries up to 1,000 revisions.
const MESSAGE_BYTES: usize = 2 << 30;

/// Where Kubernetes' servers agree who compacts.
const COMPACTION_KEY: &str = "compact_rev_key";

/// Cheap to clone: all share the channel.
#[derive(Clone)]
pub(super) struct Connection {
    kv: KvClient,
    watch: WatchClient,
    timeout: Duration,
}

/// The answer to a try to be the one who compacts.
pub(super) struct CompactionTurn {
    pub(super) is_ours: bool,
    /// How often the servers have compacted.
    pub(super) count: i64,
    pub(super) revision: Revision,
}

impl Connection {
    pub(super) async fn new(
        endpoints: &[String],
        tls: Option<TlsOptions>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(timeout)
            // A peer that vanished without a word is noticed, also while only the watch is open.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            // A member that is cut off from the others must not answer for them.
            .with_require_leader(true);
        if let Some(tls) = tls {
            options = options.with_tls(tls_config(tls));
        }
        let client = within(timeout, "connecting", Client::connect(endpoints, Some(options))).await?;
        Ok(Self {
            kv: client.kv_client().max_decoding_message_size(MESSAGE_BYTES),
            watch: client.watch_client().max_decoding_message_size(MESSAGE_BYTES),
            timeout,
        })
    }

    /// etcd's revision now, agreed by its members.
    pub(super) async fn revision(&self) -> Result<Revision, Error> {
        let options = GetOptions::new().with_count_only();
        let response = self.get_range(COMPACTION_KEY.as_bytes().to_vec(), options, 0).await?;
        header_revision(response.header())
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<KeyValue>, Error> {
        let mut response = self.get_range(key.as_str().into(), GetOptions::new(), 0).await?;
        Ok(response.take_kvs().pop().and_then(key_value))
    }

    /// One page, or all pages at one revision.
    pub(super) async fn range(&self, range: &Range) -> Result<RangeResult, Error> {
        let mut result = RangeResult { revision: 0, items: Vec::new(), remaining: 0 };
        let mut at = range.revision;
        let mut after = range.after.clone();
        loop {
            let limit = if range.limit == 0 { PAGE_KEYS } else { range.limit };
            let mut response = self.page(&range.prefix, after.as_ref(), limit, at, false).await?;
            let revision = match at {
                Some(at) => at,
                None => header_revision(response.header())?,
            };
            result.revision = revision;
            at = Some(revision);
            let items = response.take_kvs();
            let left = usize::try_from(response.count()).unwrap_or(0).saturating_sub(items.len());
            result.items.extend(items.into_iter().filter_map(key_value));
            if range.limit > 0 || left == 0 {
                result.remaining = left;
                return Ok(result);
            }
            after = result.items.last().map(|item| item.key.clone());
        }
    }

    /// All keys with their values, and the revision of the reading.
    pub(super) async fn read_all(&self) -> Result<(BTreeMap<Key, Stored>, Revision), Error> {
        let all = Range { prefix: Prefix::all(), after: None, limit: 0, revision: None };
        let result = self.range(&all).await?;
        let live = result
            .items
            .into_iter()
            .map(|item| (item.key, Stored { value: item.value, mod_revision: item.mod_revision }))
            .collect();
        Ok((live, result.revision))
    }

    /// All keys with their mod revisions.
    pub(super) async fn read_mod_revisions(&self) -> Result<(BTreeMap<Key, Revision>, Revision), Error> {
        let mut found = BTreeMap::new();
        let mut at = None;
        loop {
            let after = found.last_key_value().map(|(key, _)| key);
            let mut response = self.page(&Prefix::all(), after, 10_000, at, true).await?;
            let revision = header_revision(response.header())?;
            at = at.or(Some(revision));
            let items = response.take_kvs();
            let left = usize::try_from(response.count()).unwrap_or(0).saturating_sub(items.len());
            found.extend(items.into_iter().filter_map(key_value).map(|item| (item.key, item.mod_revision)));
            if left == 0 {
                return Ok((found, at.unwrap_or(revision)));
            }
        }
    }

    async fn page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        revision: Option<Revision>,
        keys_only: bool,
    ) -> Result<GetResponse, Error> {
        let start = match after {
            // The least key that is greater.
            Some(after) if after.as_str() >= prefix.as_str() => [after.as_str().as_bytes(), b"\0"].concat(),
            _ => prefix.as_str().into(),
        };
        // A prefix ends in `/`; the next byte is the least that does not follow it.
        let mut end: Vec<u8> = prefix.as_str().into();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        if start >= end {
            // Past the end: etcd would take it for an error.
            return self.page_at_end(end, revision).await;
        }
        let mut options =
            GetOptions::new().with_range(end).with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        if let Some(revision) = revision {
            options = options.with_revision(signed(revision));
        }
        if keys_only {
            options = options.with_keys_only();
        }
        self.get_range(start, options, revision.unwrap_or(0)).await
    }

    async fn page_at_end(&self, end: Vec<u8>, revision: Option<Revision>) -> Result<GetResponse, Error> {
        let empty_end = [&end[..], b"\0"].concat();
        let mut options = GetOptions::new().with_range(empty_end).with_limit(1).with_keys_only();
        // `/registry0` is no key of ours.
        if let Some(revision) = revision {
            options = options.with_revision(signed(revision));
        }
        self.get_range(end, options, revision.unwrap_or(0)).await
    }

    async fn get_range(
        &self,
        start: Vec<u8>,
        options: GetOptions,
        requested: Revision,
    ) -> Result<GetResponse, Error> {
        let mut kv = self.kv.clone();
        within(self.timeout, "reading", kv.get(start, Some(options)))
            .await
            .map_err(|error| about_revision(error, requested))
    }

    pub(super) async fn transact(
        &self,
        key: &Key,
        expected: Expected,
        change: Change,
    ) -> Result<Outcome, Error> {
        let mod_revision = match expected {
            Expected::Absent => 0,
            Expected::At(revision) => signed(revision),
        };
        let name = key.as_str();
        let (operation, size_bytes) = match change {
            Change::Put(value) => (TxnOp::put(name, &value[..], None), value.len()),
            Change::Delete => (TxnOp::delete(name, None), 0),
        };
        let transaction = Txn::new()
            .when([Compare::mod_revision(name, CompareOp::Equal, mod_revision)])
            .and_then([operation])
            .or_else([TxnOp::get(name, None)]);
        let mut kv = self.kv.clone();
        let response = within(self.timeout, "writing", kv.txn(transaction)).await.map_err(|error| {
            if error_text(&error).contains("request is too large") {
                Error::TooLarge { key: key.clone(), size_bytes, limit_bytes: crate::VALUE_LIMIT_BYTES }
            } else {
                error
            }
        })?;
        if response.succeeded() {
            return Ok(Outcome::Committed { revision: header_revision(response.header())? });
        }
        let current = response.op_responses().into_iter().next().and_then(|found| match found {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop().and_then(key_value),
            _ => None,
        });
        Ok(Outcome::Conflict { current })
    }

    /// Follow everything from this revision on.
    pub(super) async fn watch_all(&self, from: Revision) -> Result<WatchStream, Error> {
        let options = WatchOptions::new().with_prefix().with_start_revision(signed(from));
        let mut watch = self.watch.clone();
        within(self.timeout, "watching", watch.watch(Prefix::all().as_str(), Some(options))).await
    }

    /// Forget history before the revision; to do so twice is not an error.
    pub(super) async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut kv = self.kv.clone();
        let compacted = within(self.timeout, "compacting", kv.compact(signed(revision), None)).await;
        match compacted.map_err(|error| about_revision(error, revision)) {
            Ok(_) | Err(Error::Compacted { .. }) => Ok(()),
            Err(Error::Future { requested, .. }) => {
                Err(Error::Future { requested, current: self.revision().await? })
            }
            Err(error) => Err(error),
        }
    }

    /// Take the turn to compact, if no other server did since it was the turn's `count`.
    pub(super) async fn take_compaction_turn(
        &self,
        count: i64,
        until: Revision,
    ) -> Result<CompactionTurn, Error> {
        let transaction = Txn::new()
            .when([Compare::version(COMPACTION_KEY, CompareOp::Equal, count)])
            .and_then([TxnOp::put(COMPACTION_KEY, until.to_string(), None)])
            .or_else([TxnOp::get(COMPACTION_KEY, None)]);
        let mut kv = self.kv.clone();
        let response = within(self.timeout, "taking a turn to compact", kv.txn(transaction)).await?;
        let revision = header_revision(response.header())?;
        if response.succeeded() {
            return Ok(CompactionTurn { is_ours: true, count: count + 1, revision });
        }
        let found = response.op_responses().into_iter().next();
        let count = match found {
            Some(TxnOpResponse::Get(found)) => found.kvs().first().map_or(0, etcd_client::KeyValue::version),
            _ => 0,
        };
        Ok(CompactionTurn { is_ours: false, count, revision })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

fn tls_config(tls: TlsOptions) -> etcd_client::TlsOptions {
    let mut config = etcd_client::TlsOptions::new();
    if let Some(ca) = tls.ca_pem {
        config = config.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = tls.identity_pem {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = tls.server_name {
        config = config.domain_name(name);
    }
    config
}

async fn within<T>(
    timeout: Duration,
    action: &'static str,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(timeout, request).await {
        Ok(answer) => answer.map_err(|error| Error::Etcd { action, source: Box::new(error) }),
        Err(elapsed) => Err(Error::Etcd { action, source: Box::new(elapsed) }),
    }
}

/// etcd tells by words only what is wrong with a revision.
fn about_revision(error: Error, requested: Revision) -> Error {
    let text = error_text(&error);
    if text.contains("required revision has been compacted") {
        // It does not say what it still has; it is more than that.
        Error::Compacted { requested, oldest: requested + 1 }
    } else if text.contains("required revision is a future revision") {
        Error::Future { requested, current: requested.saturating_sub(1) }
    } else {
        error
    }
}

fn error_text(error: &Error) -> String {
    match error {
        Error::Etcd { source, .. } => source.to_string(),
        error => error.to_string(),
    }
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// etcd's revisions are positive.
pub(super) fn unsigned(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or(0)
}

fn header_revision(header: Option<&ResponseHeader>) -> Result<Revision, Error> {
    let source = "its answer has no header";
    header
        .map(|header| unsigned(header.revision()))
        .ok_or_else(|| Error::Etcd { action: "reading its answer", source: source.into() })
}

/// `None` for a key that another program put under our prefix and that is not text.
pub(super) fn key_value(found: etcd_client::KeyValue) -> Option<KeyValue> {
    let mod_revision = unsigned(found.mod_revision());
    let (key, value) = found.into_key_value();
    let Ok(key) = std::str::from_utf8(&key) else {
        tracing::warn!("etcd has a key under our prefix that is not text");
        return None;
    };
    Some(KeyValue { key: Key::from_stored(key), value: Bytes::from(value), mod_revision })
}

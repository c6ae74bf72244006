//! REST verbs, written once for every kind; what distinguishes kinds is their [`strategy::Strategy`].
//!
//! Called by the HTTP layer and by the server's own start-up; calls admission, the kind's strategy and hooks, the store. Reads go
//! to the cacher.

mod assign;
pub mod context;
mod create;
mod delete;
pub mod expiry;
pub mod hooks;
pub mod object;
pub mod ownership;
mod read;
pub mod strategy;
mod update;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use wherry_machinery::status::{Reason, Status, StatusCause, StatusDetails};
use wherry_storage::{Key, KeyError, Revision, Store};

use self::context::{Context, Environment};
use self::hooks::Hooks;
use self::strategy::{Resource, Scope, Strategy};
use crate::admission::Admission;
use crate::cacher::Cacher;
use crate::cacher::entry::TypePrefix;
use crate::cacher::feed::Feed;
use crate::codec::Codec;
use crate::kinds::{Row, Subresource, View};

pub use delete::{DeleteOptions, Deleted, Preconditions, Propagation};
pub use read::ListVersion;
pub use update::{Ownership, Target, Transform, Updated};

/// A refused request: the `Status` to answer.
pub type Refusal = Box<Status>;

/// How long a read waits for the cache to reach a revision. Source: kube-apiserver's `blockTimeout`.
const FRESHNESS: Duration = Duration::from_secs(3);

/// A kind, as it is served.
pub struct Kind {
    /// What distinguishes it.
    pub strategy: Arc<dyn Strategy>,
    /// Its names.
    pub resource: Resource,
    /// Its cache.
    pub cacher: Arc<Cacher>,
    /// What happens around its commits.
    pub hooks: Option<Arc<dyn Hooks>>,
    /// Its subresources.
    pub subresources: &'static [Subresource],
    /// Whether a DELETE that removes the object answers with the object, not with a `Status`.
    pub returns_deleted: bool,
    /// Under which other names and in which other form it is stored.
    view: Option<View>,
    stored_prefix: TypePrefix,
}

impl Kind {
    fn new(row: Row) -> Self {
        let resource = row.strategy.resource();
        let stored = row.view.as_ref().map_or(resource, |view| view.stored);
        let from_stored = row.view.as_ref().map(|view| view.from_stored);
        Self {
            cacher: Arc::new(Cacher::new(Arc::clone(&row.strategy), from_stored)),
            resource,
            hooks: row.hooks,
            subresources: row.subresources,
            returns_deleted: row.returns_deleted,
            view: row.view,
            stored_prefix: TypePrefix::new(&stored),
            strategy: row.strategy,
        }
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.resource.scope == Scope::Namespaced
    }

    fn stored_as(&self) -> (&'static str, &'static str) {
        self.view
            .as_ref()
            .map_or((self.resource.group, self.resource.name), |view| (view.stored.group, view.stored.name))
    }

    fn key(&self, namespace: &str, name: &str) -> Result<Key, Refusal> {
        let (group, resource) = self.stored_as();
        let namespace = self.is_namespaced().then_some(namespace);
        Key::new(group, resource, namespace, name).map_err(|error| self.no_such_key(name, &error))
    }

    fn no_such_key(&self, name: &str, error: &KeyError) -> Refusal {
        tracing::debug!(%error, "a name that cannot exist");
        self.not_found(name)
    }

    /// No object of that name.
    pub fn not_found(&self, name: &str) -> Refusal {
        Box::new(Status::not_found(self.resource.group, self.resource.name, name))
    }

    fn encode(&self, object: &Value) -> Bytes {
        match &self.view {
            None => self.stored_prefix.stored(object),
            Some(view) => {
                let mut object = object.clone();
                (view.to_stored)(&mut object);
                self.stored_prefix.stored(&object)
            }
        }
    }

    fn decode(&self, stored: &Bytes, revision: Revision) -> Result<Value, Refusal> {
        let mut value: Value =
            serde_json::from_slice(stored).map_err(|error| Box::new(Status::internal(error)))?;
        if let Some(view) = &self.view {
            (view.from_stored)(&mut value);
        }
        value["kind"] = self.resource.kind.into();
        value["apiVersion"] = self.resource.api_version().into();
        object::set(&mut value, "resourceVersion", revision.to_string());
        Ok(value)
    }
}

/// Everything that is served, and the verbs on it.
pub struct Registry {
    store: Arc<dyn Store>,
    feed: Arc<Feed>,
    kinds: HashMap<(&'static str, &'static str, &'static str), Arc<Kind>>,
    admission: Vec<Arc<dyn Admission>>,
    codec: Arc<Codec>,
    environment: Arc<dyn Environment>,
}

impl Registry {
    /// The registry of a table of kinds, not yet fed (see [`Registry::feed`]).
    pub fn new(
        store: Arc<dyn Store>,
        table: Vec<Row>,
        admission: Vec<Arc<dyn Admission>>,
        codec: Arc<Codec>,
        environment: Arc<dyn Environment>,
    ) -> Self {
        let mut kinds = HashMap::new();
        let mut cachers: HashMap<String, Vec<Arc<Cacher>>> = HashMap::new();
        for row in table {
            let kind = Arc::new(Kind::new(row));
            let (group, resource) = kind.stored_as();
            cachers.entry(Feed::stored_under(group, resource)).or_default().push(Arc::clone(&kind.cacher));
            let names = kind.resource;
            kinds.insert((names.group, names.version, names.name), kind);
        }
        let feed = Arc::new(Feed::new(Arc::clone(&store), cachers));
        Self { store, feed, kinds, admission, codec, environment }
    }

    /// What keeps the caches up to date: load it, then run it.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// A served kind.
    pub fn kind(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Kind>> {
        // The keys are static names, so a borrowed triple cannot be looked up directly.
        self.kinds
            .iter()
            .find(|((g, v, r), _)| *g == group && *v == version && *r == resource)
            .map(|(_, kind)| kind)
    }

    /// Every served kind.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// Between bytes and objects.
    pub fn codec(&self) -> &Arc<Codec> {
        &self.codec
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Clock and randomness.
    pub fn environment(&self) -> &Arc<dyn Environment> {
        &self.environment
    }

    /// The context of a request of somebody, now.
    pub fn context(&self, identity: crate::identity::Identity) -> Context {
        Context::new(identity, self.environment.now())
    }

    pub(crate) fn admission(&self) -> &[Arc<dyn Admission>] {
        &self.admission
    }

    /// Tells the hooks of what is stored already.
    pub fn adopt(&self) {
        for kind in self.kinds.values() {
            if let Some(hooks) = &kind.hooks {
                for entry in kind.cacher.snapshot(None, 0).entries {
                    hooks.adopt(&entry.value());
                }
            }
        }
    }
}

/// The `Status` of a store that failed.
pub(crate) fn store_failed(error: wherry_storage::Error) -> Refusal {
    use wherry_storage::Error;
    Box::new(match error {
        Error::TooLarge { size_bytes, limit_bytes, .. } => Status::failure(
            Reason::RequestEntityTooLarge,
            format!(
                "Request entity too large: object of {size_bytes} bytes is larger than {limit_bytes} bytes"
            ),
        ),
        Error::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        Error::Future { requested, current } => too_large_version(requested, current),
        Error::Closed => Status::failure(Reason::ServiceUnavailable, "the server is shutting down"),
        error @ (Error::InUse { .. } | Error::Disk { .. } | Error::Etcd { .. }) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            Status::internal(text)
        }
    })
}

/// The version asked for is not there yet.
pub(crate) fn too_large_version(requested: Revision, current: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    Status::failure(Reason::Timeout, message).with_details(StatusDetails {
        causes: vec![StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..StatusDetails::default()
    })
}

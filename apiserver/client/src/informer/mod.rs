//! Shared informers: one watch per kind and selection, a store that follows it, handlers that are told what changed.

mod reflect;
mod store;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::ApiResource;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Lifecycle;
use reflect::Reflector;
pub use store::Store;

/// What an informer needs of a kind.
pub trait Kind: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Kind for K {}

/// Only an object's metadata, of a kind known at run time.
pub type ObjectMetadata = PartialObjectMeta;

/// What changed. Handlers put keys into queues; they do not act on the objects.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// The object is new to this informer.
    Added(&'a Arc<K>),
    /// The object differs from what the informer knew. (One that was deleted and made anew is Deleted, then Added.)
    Updated {
        /// As it was.
        old: &'a Arc<K>,
        /// As it is.
        new: &'a Arc<K>,
    },
    /// The object is gone; this is its last known state.
    Deleted(&'a Arc<K>),
}

impl<'a, K> Change<'a, K> {
    /// The object as it is now, or as it was last.
    pub fn object(&self) -> &'a Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }

    /// The object as it was before an update.
    pub fn old(&self) -> Option<&'a Arc<K>> {
        match self {
            Self::Updated { old, .. } => Some(old),
            Self::Added(_) | Self::Deleted(_) => None,
        }
    }
}

impl<K> Clone for Change<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Change<'_, K> {}

/// Which objects of a kind an informer holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    labels: Option<String>,
    fields: Option<String>,
}

impl Selection {
    /// All objects of the kind.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those that match this label selector.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: Some(selector.into()), ..Self::default() }
    }

    /// Those that match this field selector.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: Some(selector.into()), ..Self::default() }
    }

    /// Also narrowed by this label selector.
    #[must_use]
    pub fn and_labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }
}

/// The informers of one component: one per kind and selection, started when first asked for, stopped by the lifecycle.
/// Clones share them. Must be used within a tokio runtime.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    informers: Mutex<HashMap<Identity, Box<dyn Any + Send + Sync>>>,
}

/// Group, version and plural name.
type ResourceIdentity = (String, String, String);

#[derive(PartialEq, Eq, Hash)]
struct Identity {
    rust_type: TypeId,
    /// For types that stand for many kinds.
    resource: Option<ResourceIdentity>,
    selection: Selection,
}

impl Informers {
    /// No informers yet; those asked for later end with `lifecycle`.
    pub fn new(client: Client, lifecycle: &Lifecycle) -> Self {
        let shared = Shared {
            client,
            shutdown: lifecycle.shutdown.child_token(),
            tasks: TaskTracker::new(),
            informers: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The client that the informers use.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The informer of all objects of a kind, in all namespaces.
    pub fn of<K: Kind + Resource<DynamicType = ()>>(&self) -> Informer<K> {
        self.of_selected(Selection::all())
    }

    /// The informer of the selected objects of a kind.
    pub fn of_selected<K: Kind + Resource<DynamicType = ()>>(&self, selection: Selection) -> Informer<K> {
        self.start(None, selection, K::url_path(&(), None), Api::all(self.shared.client.clone()), |_| {})
    }

    /// The informer of the metadata of all objects of a kind known at run time. `trim` drops what the caller does not
    /// need before it is stored; it must be the same for every caller of one resource.
    pub fn of_metadata(
        &self,
        resource: &ApiResource,
        trim: fn(&mut ObjectMetadata),
    ) -> Informer<ObjectMetadata> {
        let url = ObjectMetadata::url_path(resource, None);
        let api = Api::all_with(self.shared.client.clone(), resource);
        self.start(Some(resource_identity(resource)), Selection::all(), url, api, trim)
    }

    /// Forgets and stops the informer of a kind known at run time: the kind is gone.
    pub fn drop_metadata(&self, resource: &ApiResource) {
        let identity = Identity {
            rust_type: TypeId::of::<ObjectMetadata>(),
            resource: Some(resource_identity(resource)),
            selection: Selection::all(),
        };
        let informer = self.lock().remove(&identity);
        if let Some(informer) = informer.and_then(|any| any.downcast::<Informer<ObjectMetadata>>().ok()) {
            informer.stop.cancel();
        }
    }

    /// Stops all informers and waits until they have ended.
    pub async fn shut_down(&self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn start<K: Kind>(
        &self,
        resource: Option<ResourceIdentity>,
        selection: Selection,
        url: String,
        api: Api<K>,
        trim: fn(&mut K),
    ) -> Informer<K> {
        let identity = Identity { rust_type: TypeId::of::<K>(), resource, selection: selection.clone() };
        let mut informers = self.lock();
        if let Some(known) = informers.get(&identity).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return known.clone();
        }
        let (synced_sender, synced) = watch::channel(false);
        let stop = self.shared.shutdown.child_token();
        let informer = Informer {
            store: Store::default(),
            handlers: Arc::default(),
            synced,
            stop: stop.clone(),
            url: url.into(),
        };
        let reflector = Reflector::new(api, selection, informer.clone(), synced_sender, trim);
        self.shared.tasks.spawn(async move { stop.run_until_cancelled(reflector.run()).await });
        informers.insert(identity, Box::new(informer.clone()));
        informer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Box<dyn Any + Send + Sync>>> {
        self.shared.informers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informers").field("informers", &self.lock().len()).finish_non_exhaustive()
    }
}

fn resource_identity(resource: &ApiResource) -> ResourceIdentity {
    (resource.group.clone(), resource.version.clone(), resource.plural.clone())
}

type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

/// A view of the API server's objects of one kind, kept up to date by one watch. Clones share it.
///
/// # Guarantees
/// Each handler sees every object that is or comes into being as Added first, then its changes in the order of the
/// server's revisions, then Deleted, also when it was deleted while the connection was down. The store is at least as
/// new as what the handler is told.
pub struct Informer<K> {
    store: Store<K>,
    handlers: Arc<Mutex<Vec<Handler<K>>>>,
    synced: watch::Receiver<bool>,
    stop: CancellationToken,
    url: Arc<str>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            handlers: self.handlers.clone(),
            synced: self.synced.clone(),
            stop: self.stop.clone(),
            url: self.url.clone(),
        }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer")
            .field("url", &self.url)
            .field("synced", &self.has_synced())
            .finish_non_exhaustive()
    }
}

impl<K> Informer<K> {
    /// What the informer knows.
    pub fn store(&self) -> &Store<K> {
        &self.store
    }

    /// Whether the store has been complete once.
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the store has been complete once; false when the informer was stopped before.
    pub async fn wait_synced(&self) -> bool {
        let mut synced = self.synced.clone();
        synced.wait_for(|synced| *synced).await.is_ok()
    }

    /// The path that is watched.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl<K: Kind> Informer<K> {
    /// Tells `handler` of every object that exists now (as Added) and of every change from now on.
    ///
    /// Handlers run one after the other on the informer's own task: they put keys into queues and return. They may read
    /// the store, and must not subscribe.
    pub fn subscribe(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.lock_handlers();
        for object in self.store.list() {
            handler(Change::Added(&object));
        }
        handlers.push(Box::new(handler));
    }

    /// Adds an index of this name, unless there is one: the values under which [`Store::indexed`] finds an object.
    pub fn add_index(&self, name: &'static str, values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.store.add_index(name, Box::new(values));
    }

    fn lock_handlers(&self) -> MutexGuard<'_, Vec<Handler<K>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, object: K) {
        let handlers = self.lock_handlers();
        let object = Arc::new(object);
        let old = self.store.insert(object.clone());
        notify(&handlers, old.as_ref(), Some(&object));
    }

    fn delete(&self, object: &K) {
        let handlers = self.lock_handlers();
        let old = self.store.remove(object);
        notify(&handlers, old.as_ref(), None);
    }

    /// Takes a complete list: what is not in it is gone.
    fn replace(&self, objects: Vec<Arc<K>>) {
        let handlers = self.lock_handlers();
        for (old, new) in self.store.replace(objects) {
            notify(&handlers, old.as_ref(), new.as_ref());
        }
    }
}

fn notify<K: Kind>(handlers: &[Handler<K>], old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
    let tell = |change: Change<'_, K>| handlers.iter().for_each(|handler| handler(change));
    match (old, new) {
        (Some(old), Some(new)) if old.meta().uid == new.meta().uid => {
            if old.meta().resource_version != new.meta().resource_version {
                tell(Change::Updated { old, new });
            }
        }
        (old, new) => {
            old.map(Change::Deleted).into_iter().for_each(tell);
            new.map(Change::Added).into_iter().for_each(tell);
        }
    }
}

#[cfg(test)]
mod tests;

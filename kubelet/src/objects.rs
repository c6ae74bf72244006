//! ConfigMaps and Secrets that pods of this node name, kept by one watch per object.
//!
//! The first reader starts the watch and waits for its first list. When an object changes, the pods that were
//! registered for it are told. The watch ends with the last registration.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_client::backoff::Backoff;

use crate::pod::sources::{References, Sources};

/// How long a reader waits for an object that it has not seen yet.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Told when an object changed: the uids of the pods that name it.
pub(crate) type OnChange = Arc<dyn Fn(&BTreeSet<String>) + Send + Sync>;

/// An object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ObjectError {
    /// The API server's words.
    #[error("{0}")]
    Api(String),
    /// No answer.
    #[error("timed out waiting for {kind} {namespace}/{name}")]
    Timeout {
        /// Kind.
        kind: String,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

/// What a watch knows: nothing yet, an error, absent, or the object.
type Known<K> = Option<Result<Option<Arc<K>>, String>>;

struct Entry<K> {
    state: watch::Receiver<Known<K>>,
    pods: Arc<Mutex<BTreeSet<String>>>,
    stop: CancellationToken,
}

/// Objects of one kind.
struct Kind<K> {
    client: Client,
    entries: Mutex<HashMap<(String, String), Entry<K>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    on_change: OnChange,
}

impl<K> Kind<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    fn register(&self, pod_uid: &str, namespace: &str, name: &str) -> watch::Receiver<Known<K>> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry((namespace.to_owned(), name.to_owned())).or_insert_with(|| {
            let (sender, state) = watch::channel(None);
            let pods: Arc<Mutex<BTreeSet<String>>> = Arc::default();
            let stop = self.shutdown.child_token();
            let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
            let follow = follow(api, name.to_owned(), sender, pods.clone(), self.on_change.clone());
            let stopped = stop.clone();
            self.tasks.spawn(async move {
                stopped.run_until_cancelled(follow).await;
            });
            Entry { state, pods, stop }
        });
        lock(&entry.pods).insert(pod_uid.to_owned());
        entry.state.clone()
    }

    async fn get(&self, pod_uid: &str, namespace: &str, name: &str) -> Result<Option<Arc<K>>, ObjectError> {
        let mut state = self.register(pod_uid, namespace, name);
        let known = tokio::time::timeout(READ_TIMEOUT, state.wait_for(Option::is_some)).await;
        match known.ok().and_then(Result::ok).as_deref() {
            Some(Some(Ok(object))) => Ok(object.clone()),
            Some(Some(Err(error))) => Err(ObjectError::Api(error.clone())),
            _ => Err(ObjectError::Timeout {
                kind: K::kind(&()).to_lowercase(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
        }
    }

    fn unregister(&self, pod_uid: &str, namespace: &str, names: &BTreeSet<String>) {
        let mut entries = lock(&self.entries);
        for name in names {
            let key = (namespace.to_owned(), name.clone());
            let Some(entry) = entries.get(&key) else { continue };
            let is_unused = {
                let mut pods = lock(&entry.pods);
                pods.remove(pod_uid);
                pods.is_empty()
            };
            if is_unused {
                entry.stop.cancel();
                entries.remove(&key);
            }
        }
    }
}

async fn follow<K>(
    api: Api<K>,
    name: String,
    sender: watch::Sender<Known<K>>,
    pods: Arc<Mutex<BTreeSet<String>>>,
    on_change: OnChange,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let selector = format!("metadata.name={name}");
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let publish = |known: Result<Option<Arc<K>>, String>| {
        let version = |known: &Known<K>| match known {
            Some(Ok(object)) => Some(object.as_ref().and_then(|o| o.meta().resource_version.clone())),
            _ => None,
        };
        let fresh = Some(known);
        let is_first = sender.borrow().is_none();
        let is_change = sender.send_if_modified(|known| {
            let differs =
                known.is_none() || version(known) != version(&fresh) || matches!(fresh, Some(Err(_)));
            known.clone_from(&fresh);
            differs
        });
        if is_change && !is_first {
            let pods = lock(&pods).clone();
            on_change(&pods);
        }
    };
    loop {
        let list = match api.list(&ListParams::default().fields(&selector)).await {
            Ok(list) => list,
            Err(error) => {
                // What is known already stays; a first reader is told why there is nothing.
                if !matches!(&*sender.borrow(), Some(Ok(_))) {
                    publish(Err(error.to_string()));
                }
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        let mut version = list.metadata.resource_version.clone().unwrap_or_default();
        publish(Ok(list.items.into_iter().next().map(Arc::new)));
        loop {
            let params = WatchParams::default().fields(&selector).timeout(290);
            let Ok(stream) = api.watch(&params, &version).await else { break };
            let mut stream = stream.boxed();
            let mut is_valid = true;
            while let Ok(Some(event)) = stream.try_next().await {
                backoff.reset();
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        version = object.meta().resource_version.clone().unwrap_or(version);
                        publish(Ok(Some(Arc::new(object))));
                    }
                    WatchEvent::Deleted(object) => {
                        version = object.meta().resource_version.clone().unwrap_or(version);
                        publish(Ok(None));
                    }
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(_) => {
                        is_valid = false;
                        break;
                    }
                }
            }
            if !is_valid {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// ConfigMaps and Secrets by pod.
pub(crate) struct Objects {
    config_maps: Kind<ConfigMap>,
    secrets: Kind<Secret>,
}

impl Objects {
    pub(crate) fn new(
        client: &Client,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
        on_change: OnChange,
    ) -> Self {
        Self {
            config_maps: Kind {
                client: client.clone(),
                entries: Mutex::default(),
                tasks: tasks.clone(),
                shutdown: shutdown.clone(),
                on_change: on_change.clone(),
            },
            secrets: Kind {
                client: client.clone(),
                entries: Mutex::default(),
                tasks: tasks.clone(),
                shutdown: shutdown.clone(),
                on_change,
            },
        }
    }

    /// Reads everything that a pod names, and keeps it up to date until [`Self::unregister`].
    pub(crate) async fn gather(
        &self,
        pod_uid: &str,
        namespace: &str,
        references: &References,
    ) -> Result<Sources, ObjectError> {
        let config_maps =
            futures::future::try_join_all(references.config_maps.iter().map(|name| async move {
                Ok::<_, ObjectError>((name.clone(), self.config_maps.get(pod_uid, namespace, name).await?))
            }));
        let secrets = futures::future::try_join_all(references.secrets.iter().map(|name| async move {
            Ok::<_, ObjectError>((name.clone(), self.secrets.get(pod_uid, namespace, name).await?))
        }));
        let (config_maps, secrets) = futures::try_join!(config_maps, secrets)?;
        Ok(Sources {
            config_maps: config_maps.into_iter().filter_map(|(name, object)| Some((name, object?))).collect(),
            secrets: secrets.into_iter().filter_map(|(name, object)| Some((name, object?))).collect(),
        })
    }

    /// The pod needs nothing any more.
    pub(crate) fn unregister(&self, pod_uid: &str, namespace: &str, references: &References) {
        self.config_maps.unregister(pod_uid, namespace, &references.config_maps);
        self.secrets.unregister(pod_uid, namespace, &references.secrets);
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

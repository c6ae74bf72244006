//! The informers of everything that can be deleted, and the graph they keep.

use std::collections::HashMap;
use std::sync::Arc;

use kube::api::ApiResource;
use wherry_client::informer::ObjectMetadata;
use wherry_client::{Change, Informer, Informers};

use super::GarbageCollector;
use super::graph::Identity;
use crate::discovery::{ServedResource, preferred_resources};
use crate::error::Error;

/// Resources that own nothing and are not worth a watch, as in Kubernetes.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// What is watched.
pub(super) struct Watched {
    informers: Informers,
    collector: Arc<GarbageCollector>,
    by_resource: HashMap<(String, String), (ApiResource, Informer<ObjectMetadata>)>,
}

impl Watched {
    pub(super) fn new(informers: Informers, collector: Arc<GarbageCollector>) -> Self {
        Self { informers, collector, by_resource: HashMap::new() }
    }

    /// Looks at what resources there are, watches the new ones and forgets those that are gone.
    pub(super) async fn discover(&mut self) -> Result<(), Error> {
        let served =
            preferred_resources(&self.collector.client).await.map_err(Error::api("discovering resources"))?;
        self.collector.mapper.replace(&served);
        let wanted: HashMap<_, _> =
            served.iter().filter(|served| is_collected(served)).map(|s| (key(&s.resource), s)).collect();
        let gone: Vec<_> =
            self.by_resource.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Some((resource, informer)) = self.by_resource.remove(&key) {
                self.informers.drop_metadata(&resource);
                for object in informer.store().list() {
                    let work =
                        self.collector.graph().remove(object.metadata.uid.as_deref().unwrap_or_default());
                    self.collector.enqueue(work);
                }
            }
        }
        for (key, served) in wanted {
            if !self.by_resource.contains_key(&key) {
                let informer = self.watch(&served.resource);
                self.by_resource.insert(key, (served.resource.clone(), informer));
            }
        }
        Ok(())
    }

    pub(super) async fn wait_synced(&self) -> Result<(), Error> {
        for (_, informer) in self.by_resource.values() {
            if !informer.wait_synced().await {
                return Err(Error::NotSynced);
            }
        }
        Ok(())
    }

    fn watch(&self, resource: &ApiResource) -> Informer<ObjectMetadata> {
        let informer = self.informers.of_metadata(resource, trim);
        let (api_version, kind): (Arc<str>, Arc<str>) =
            (resource.api_version.as_str().into(), resource.kind.as_str().into());
        let collector = self.collector.clone();
        let defines_resources =
            resource.group == "apiextensions.k8s.io" || resource.group == "apiregistration.k8s.io";
        informer.subscribe(move |change| {
            let metadata = &change.object().metadata;
            let uid = metadata.uid.clone().unwrap_or_default();
            let work = match change {
                Change::Deleted(_) => collector.graph().remove(&uid),
                Change::Added(_) | Change::Updated { .. } => {
                    if change.old().is_some_and(|old| {
                        old.metadata_that_matters() == change.object().metadata_that_matters()
                    }) {
                        return;
                    }
                    let identity = Identity {
                        api_version: api_version.clone(),
                        kind: kind.clone(),
                        namespace: metadata.namespace.clone().unwrap_or_default(),
                        name: metadata.name.clone().unwrap_or_default(),
                        uid,
                    };
                    collector.graph().observe(identity, metadata)
                }
            };
            collector.enqueue(work);
            if defines_resources {
                collector.rediscover.notify_one();
            }
        });
        informer
    }
}

/// What the graph is made of.
trait MetadataThatMatters {
    fn metadata_that_matters(&self) -> impl PartialEq;
}

impl MetadataThatMatters for ObjectMetadata {
    fn metadata_that_matters(&self) -> impl PartialEq {
        (&self.metadata.owner_references, &self.metadata.finalizers, &self.metadata.deletion_timestamp)
    }
}

fn key(resource: &ApiResource) -> (String, String) {
    (resource.group.clone(), resource.plural.clone())
}

fn is_collected(served: &ServedResource) -> bool {
    let is_ignored = IGNORED.contains(&(served.resource.group.as_str(), served.resource.plural.as_str()));
    !is_ignored && served.has(&["list", "watch", "delete"])
}

/// The graph needs to know who an object is, who owns it, and whether it goes.
fn trim(object: &mut ObjectMetadata) {
    object.types = None;
    object.metadata.labels = None;
    object.metadata.annotations = None;
    object.metadata.generate_name = None;
    object.metadata.creation_timestamp = None;
}

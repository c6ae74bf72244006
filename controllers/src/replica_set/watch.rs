//! Which replica sets a change concerns.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use wherry_client::object_ref::controller_of;
use wherry_client::{Change, ObjectKey, Store, WorkQueue};

use super::ReplicaSetController;
use crate::expectations::Expectations;
use crate::{pods, selector};

impl ReplicaSetController {
    /// Queues what changes concern, and notes what was expected.
    pub(super) fn subscribe(&self) {
        let queue = self.queue.clone();
        self.replica_sets.subscribe(move |change| {
            // A status that this controller wrote itself asks for nothing.
            if let Change::Updated { old, new } = change
                && old.metadata.generation == new.metadata.generation
                && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
                && old.metadata.labels == new.metadata.labels
                && old.status != new.status
            {
                return;
            }
            queue.add(ObjectKey::of(&**change.object()));
        });
        let handler = PodHandler {
            replica_sets: self.replica_sets.store().clone(),
            queue: self.queue.clone(),
            expectations: self.expectations.clone(),
        };
        self.pods.subscribe(move |change| handler.handle(change));
    }
}

struct PodHandler {
    replica_sets: Store<ReplicaSet>,
    queue: WorkQueue<ObjectKey>,
    expectations: Arc<Expectations>,
}

impl PodHandler {
    fn handle(&self, change: Change<'_, Pod>) {
        let pod = change.object();
        let key = self.owner_key(pod);
        match change {
            Change::Added(_) => {
                if let Some(key) = &key {
                    self.expectations.creation_seen(key);
                    if pods::is_terminating(pod) {
                        self.expectations.deletion_seen(key, pods::uid(pod));
                    }
                }
            }
            Change::Updated { old, .. } => {
                let changed_owner = controller_of(&**old).map(|owner| &owner.uid)
                    != controller_of(&**pod).map(|owner| &owner.uid);
                if changed_owner && let Some(former) = self.owner_key(old) {
                    self.queue.add(former);
                }
                if pods::is_terminating(pod)
                    && let Some(key) = &key
                {
                    self.expectations.deletion_seen(key, pods::uid(pod));
                }
                if key.is_none() && !changed_owner && old.metadata.labels == pod.metadata.labels {
                    return;
                }
            }
            Change::Deleted(_) => {
                if let Some(key) = &key {
                    self.expectations.deletion_seen(key, pods::uid(pod));
                }
            }
        }
        match key {
            Some(key) => self.queue.add(key),
            None if controller_of(&**pod).is_none() && pods::is_active(pod) => self.queue_adopters(pod),
            None => {}
        }
    }

    /// The replica set that controls the pod.
    fn owner_key(&self, pod: &Pod) -> Option<ObjectKey> {
        let owner = controller_of(pod).filter(|owner| is_replica_set(owner))?;
        Some(ObjectKey::new(pods::namespace(pod), owner.name.clone()))
    }

    /// An orphan concerns every replica set that could adopt it.
    fn queue_adopters(&self, pod: &Pod) {
        for replica_set in self.replica_sets.list_namespace(pods::namespace(pod)) {
            let Some(spec) = &replica_set.spec else { continue };
            let matches = selector::compile(&spec.selector, String::new)
                .is_ok_and(|compiled| selector::matches(&compiled, pod.metadata.labels.as_ref()));
            if matches {
                self.queue.add(ObjectKey::of(&*replica_set));
            }
        }
    }
}

fn is_replica_set(owner: &OwnerReference) -> bool {
    owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/")
}

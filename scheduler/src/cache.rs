//! What is known of the cluster, kept up to date by informers, and what was decided but is not yet known there.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use wherry_client::ObjectKey;

use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::Volumes;

/// The nodes with their pods. A pod that was given a node counts there from the decision on (it is *assumed*), until the
/// informer shows it there, or its binding fails.
#[derive(Debug, Default)]
pub struct Cache {
    snapshot: Snapshot,
    pods: HashMap<ObjectKey, Placed>,
}

#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: String,
    is_assumed: bool,
}

impl Cache {
    /// What the scheduling cycle reads.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is known of storage.
    pub fn volumes_mut(&mut self) -> &mut Volumes {
        self.snapshot.volumes_mut()
    }

    /// A node has come or changed. Pods that were seen before it count from now on.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let is_new = self.snapshot.node(&name).is_none();
        self.snapshot.set_node(node);
        if is_new && let Some(info) = self.snapshot.node_mut(&name) {
            for placed in self.pods.values().filter(|placed| placed.node == name) {
                info.add_pod(&placed.pod);
            }
        }
    }

    /// A node is gone; its pods may be there for a while.
    pub fn remove_node(&mut self, name: &str) {
        self.snapshot.remove_node(name);
    }

    /// Count a pod on the node that was decided for it.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(Placed { pod, node: node.to_owned(), is_assumed: true });
    }

    /// The binding failed: the pod does not count any more.
    pub fn forget(&mut self, pod: &PodInfo) {
        if self.pods.get(&pod.key).is_some_and(|placed| placed.is_assumed && placed.pod.uid == pod.uid) {
            self.remove(&pod.key);
        }
    }

    /// An assigned pod, as the informer shows it: the truth, whatever was assumed.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        match pod.node_name().map(str::to_owned) {
            Some(node) if !pod.is_terminal() => self.place(Placed { pod, node, is_assumed: false }),
            _ => self.remove(&pod.key),
        }
    }

    /// A pod is gone or has ended.
    pub fn remove_pod(&mut self, pod: &PodInfo) {
        if self.pods.get(&pod.key).is_some_and(|placed| placed.pod.uid == pod.uid) {
            self.remove(&pod.key);
        }
    }

    /// Whether the pod was given a node.
    pub fn is_placed(&self, pod: &PodInfo) -> bool {
        self.pods.get(&pod.key).is_some_and(|placed| placed.pod.uid == pod.uid)
    }

    fn place(&mut self, placed: Placed) {
        self.remove(&placed.pod.key);
        if let Some(node) = self.snapshot.node_mut(&placed.node) {
            node.add_pod(&placed.pod);
        }
        self.snapshot.volumes_mut().add_user(&placed.pod);
        self.pods.insert(placed.pod.key.clone(), placed);
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some(placed) = self.pods.remove(key) else { return };
        self.snapshot.volumes_mut().remove_user(&placed.pod);
        if let Some(node) = self.snapshot.node_mut(&placed.node) {
            node.remove_pod(&placed.pod);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod, pod_on};

    fn used(cache: &Cache, name: &str) -> (i64, usize) {
        let node = cache.snapshot().node(name).unwrap();
        (node.requested.cpu_millicores, node.pod_count)
    }

    #[test]
    fn an_assumed_pod_counts_until_its_binding_fails() {
        let mut cache = Cache::default();
        cache.set_node(node("n1", "4"));
        let one = pod("one", "500m");
        cache.assume(one.clone(), "n1");
        assert_eq!(used(&cache, "n1"), (500, 1));
        assert!(cache.is_placed(&one));
        cache.forget(&one);
        assert_eq!(used(&cache, "n1"), (0, 0));
        cache.forget(&one);
        assert_eq!(used(&cache, "n1"), (0, 0));
    }

    #[test]
    fn what_the_informer_shows_replaces_what_was_assumed() {
        let mut cache = Cache::default();
        cache.set_node(node("n1", "4"));
        cache.set_node(node("n2", "4"));
        let one = pod("one", "500m");
        cache.assume(one.clone(), "n1");
        cache.set_pod(pod_on("one", "500m", "n2"));
        assert_eq!((used(&cache, "n1"), used(&cache, "n2")), ((0, 0), (500, 1)));
        cache.forget(&one);
        assert_eq!(used(&cache, "n2"), (500, 1), "a binding that was seen is not forgotten");
        cache.remove_pod(&one);
        assert_eq!(used(&cache, "n2"), (0, 0));
    }

    #[test]
    fn pods_count_also_if_they_were_seen_before_their_node() {
        let mut cache = Cache::default();
        cache.set_pod(pod_on("one", "500m", "n1"));
        cache.set_node(node("n1", "4"));
        assert_eq!(used(&cache, "n1"), (500, 1));
        cache.remove_node("n1");
        cache.set_node(node("n1", "8"));
        assert_eq!(used(&cache, "n1"), (500, 1), "a node that comes again has its pods");
        cache.set_node(node("n1", "2"));
        assert_eq!(used(&cache, "n1"), (500, 1), "a node that changes has its pods");
    }

    #[test]
    fn nodes_that_go_leave_the_others_findable() {
        let mut cache = Cache::default();
        for name in ["a", "b", "c"] {
            cache.set_node(node(name, "1"));
        }
        cache.remove_node("a");
        for name in ["b", "c"] {
            assert_eq!(cache.snapshot().node(name).unwrap().name, name);
        }
        assert!(cache.snapshot().node("a").is_none());
    }
}

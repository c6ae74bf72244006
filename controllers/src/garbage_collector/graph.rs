//! Who owns whom: every object of the cluster by uid, with its owners and dependents.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The finalizer of an object that waits for its dependents to be deleted.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to lose it as an owner.
pub(super) const ORPHAN: &str = "orphan";

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) api_version: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// What has to be looked at after a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// Perhaps the object of this uid is to be deleted.
    Delete(String),
    /// The dependents of the object of this uid are to be orphaned.
    Orphan(String),
}

/// An object as the graph knows it, for a decision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub(super) identity: Identity,
    pub(super) is_deleting: bool,
    pub(super) is_deleting_dependents: bool,
    pub(super) dependents: Vec<Dependent>,
}

/// An object that names another as its owner.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dependent {
    pub(super) identity: Identity,
    pub(super) is_deleting_dependents: bool,
    /// Whether the owner's foreground deletion has to wait for it.
    pub(super) is_blocking: bool,
}

/// The graph. Owners that were named but not seen yet are in it too, as virtual nodes, until they are seen or found absent.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
}

#[derive(Debug)]
struct Node {
    identity: Identity,
    owners: Vec<OwnerReference>,
    dependents: HashSet<String>,
    is_virtual: bool,
    is_deleting: bool,
    is_deleting_dependents: bool,
    is_orphaning: bool,
}

impl Node {
    fn new(identity: Identity, is_virtual: bool) -> Self {
        Self {
            identity,
            owners: Vec::new(),
            dependents: HashSet::new(),
            is_virtual,
            is_deleting: false,
            is_deleting_dependents: false,
            is_orphaning: false,
        }
    }
}

impl Graph {
    /// An object exists, or has changed.
    pub(super) fn observe(&mut self, identity: Identity, metadata: &ObjectMeta) -> Vec<Work> {
        let uid = identity.uid.clone();
        let mut work = Vec::new();
        let owners = metadata.owner_references.clone().unwrap_or_default();
        let node = self.nodes.entry(uid.clone()).or_insert_with(|| Node::new(identity.clone(), false));
        node.is_virtual = false;
        node.identity = identity;
        let former = std::mem::replace(&mut node.owners, owners.clone());
        let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
        let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
        let is_deleting = metadata.deletion_timestamp.is_some();
        let (deletes_dependents, orphans) = (is_deleting && has(FOREGROUND), is_deleting && has(ORPHAN));
        let begins_deleting_dependents = deletes_dependents && !node.is_deleting_dependents;
        let begins_orphaning = orphans && !node.is_orphaning;
        node.is_deleting = is_deleting;
        node.is_deleting_dependents = deletes_dependents;
        node.is_orphaning = orphans;
        let namespace = node.identity.namespace.clone();
        self.link(&uid, &namespace, &former, &owners, &mut work);
        if begins_orphaning {
            work.push(Work::Orphan(uid.clone()));
        }
        if begins_deleting_dependents {
            let dependents = self.nodes.get(&uid).map(|node| node.dependents.clone()).unwrap_or_default();
            work.extend(dependents.into_iter().map(Work::Delete));
            work.push(Work::Delete(uid));
        }
        work
    }

    /// An object is gone, or was found never to have been.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: Vec<_> = node.dependents.iter().cloned().map(Work::Delete).collect();
        for owner in &node.owners {
            let Some(owner_node) = self.nodes.get_mut(&owner.uid) else { continue };
            owner_node.dependents.remove(uid);
            if owner_node.is_deleting_dependents {
                work.push(Work::Delete(owner.uid.clone()));
            }
            self.drop_if_unused(&owner.uid);
        }
        // Its dependents still name it: whoever looks at them finds it absent.
        work
    }

    /// The object of this uid, if it is known or was named.
    pub(super) fn view(&self, uid: &str) -> Option<View> {
        let node = self.nodes.get(uid)?;
        let dependent = |dependent_uid: &String| {
            let dependent = self.nodes.get(dependent_uid)?;
            let is_blocking = dependent
                .owners
                .iter()
                .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true));
            Some(Dependent {
                identity: dependent.identity.clone(),
                is_deleting_dependents: dependent.is_deleting_dependents,
                is_blocking,
            })
        };
        Some(View {
            identity: node.identity.clone(),
            is_deleting: node.is_deleting,
            is_deleting_dependents: node.is_deleting_dependents,
            dependents: node.dependents.iter().filter_map(dependent).collect(),
        })
    }

    fn link(
        &mut self,
        uid: &str,
        namespace: &str,
        former: &[OwnerReference],
        owners: &[OwnerReference],
        work: &mut Vec<Work>,
    ) {
        for owner in owners {
            let known_before = former.iter().find(|known| known.uid == owner.uid);
            match self.nodes.get_mut(&owner.uid) {
                Some(node) => {
                    node.dependents.insert(uid.to_owned());
                    // A dependent that came late to an owner which waits for them.
                    if known_before.is_none() && node.is_deleting_dependents {
                        work.push(Work::Delete(uid.to_owned()));
                    }
                }
                None => {
                    let identity = Identity {
                        api_version: owner.api_version.as_str().into(),
                        kind: owner.kind.as_str().into(),
                        namespace: namespace.to_owned(),
                        name: owner.name.clone(),
                        uid: owner.uid.clone(),
                    };
                    let mut node = Node::new(identity, true);
                    node.dependents.insert(uid.to_owned());
                    self.nodes.insert(owner.uid.clone(), node);
                    // Somebody has to find out whether it exists.
                    work.push(Work::Delete(owner.uid.clone()));
                }
            }
            // It blocks its owner no more.
            let blocked = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
            if known_before.is_some_and(blocked) && !blocked(owner) {
                work.push(Work::Delete(owner.uid.clone()));
            }
        }
        for lost in former.iter().filter(|lost| !owners.iter().any(|owner| owner.uid == lost.uid)) {
            if let Some(node) = self.nodes.get_mut(&lost.uid) {
                node.dependents.remove(uid);
                if node.is_deleting_dependents {
                    work.push(Work::Delete(lost.uid.clone()));
                }
            }
            self.drop_if_unused(&lost.uid);
        }
    }

    /// A virtual node is there for its dependents' sake.
    fn drop_if_unused(&mut self, uid: &str) {
        if self.nodes.get(uid).is_some_and(|node| node.is_virtual && node.dependents.is_empty()) {
            self.nodes.remove(uid);
        }
    }

    /// Whether the object was only named so far.
    #[cfg(test)]
    fn is_virtual(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.is_virtual)
    }

    /// How many objects are known or named.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn identity(uid: &str) -> Identity {
        let (namespace, name) = ("shop".to_owned(), format!("name-{uid}"));
        Identity { api_version: "v1".into(), kind: "ConfigMap".into(), namespace, name, uid: uid.to_owned() }
    }

    fn owned_by(owners: &[(&str, bool)]) -> ObjectMeta {
        let owner = |(uid, blocks): &(&str, bool)| OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: format!("name-{uid}"),
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(*blocks),
            controller: None,
        };
        ObjectMeta { owner_references: Some(owners.iter().map(owner).collect()), ..ObjectMeta::default() }
    }

    fn deleting(finalizer: &str) -> ObjectMeta {
        ObjectMeta {
            deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
            finalizers: Some(vec![finalizer.to_owned()]),
            ..ObjectMeta::default()
        }
    }

    fn delete(uid: &str) -> Work {
        Work::Delete(uid.to_owned())
    }

    #[test]
    fn dependents_of_a_removed_owner_are_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(graph.observe(identity("owner"), &ObjectMeta::default()), []);
        assert_eq!(graph.observe(identity("child"), &owned_by(&[("owner", true)])), []);
        assert_eq!(graph.remove("owner"), [delete("child")]);
        assert_eq!(graph.remove("child"), []);
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn an_owner_that_was_never_seen_is_looked_for() {
        let mut graph = Graph::default();
        assert_eq!(graph.observe(identity("child"), &owned_by(&[("owner", true)])), [delete("owner")]);
        assert!(graph.is_virtual("owner"));
        // It turns up: the dependents are there already.
        graph.observe(identity("owner"), &ObjectMeta::default());
        assert!(!graph.is_virtual("owner"));
        assert_eq!(graph.view("owner").map(|view| view.dependents.len()), Some(1));
        // Or it never does, and goes with the last that names it.
        graph.observe(identity("other"), &owned_by(&[("ghost", true)]));
        graph.remove("other");
        assert_eq!(graph.view("ghost"), None);
    }

    #[test]
    fn foreground_deletion_looks_at_the_dependents_and_then_at_the_owner_when_they_go() {
        let mut graph = Graph::default();
        graph.observe(identity("owner"), &ObjectMeta::default());
        graph.observe(identity("a"), &owned_by(&[("owner", true)]));
        graph.observe(identity("b"), &owned_by(&[("owner", false)]));
        let mut work = graph.observe(identity("owner"), &deleting(FOREGROUND));
        work.sort_by_key(|work| format!("{work:?}"));
        assert_eq!(work, [delete("a"), delete("b"), delete("owner")]);
        assert_eq!(graph.observe(identity("owner"), &deleting(FOREGROUND)), [], "once is enough");
        let view = graph.view("owner").expect("it is known");
        assert!(view.is_deleting_dependents);
        assert_eq!(view.dependents.iter().filter(|dependent| dependent.is_blocking).count(), 1);
        assert_eq!(graph.observe(identity("late"), &owned_by(&[("owner", true)])), [delete("late")]);
        assert_eq!(graph.remove("a"), [delete("owner")]);
    }

    #[test]
    fn a_dependent_that_stops_blocking_or_leaves_lets_the_owner_be_looked_at() {
        let mut graph = Graph::default();
        graph.observe(identity("owner"), &ObjectMeta::default());
        graph.observe(identity("a"), &owned_by(&[("owner", true)]));
        assert_eq!(graph.observe(identity("a"), &owned_by(&[("owner", false)])), [delete("owner")]);
        graph.observe(identity("owner"), &deleting(FOREGROUND));
        assert_eq!(graph.observe(identity("a"), &owned_by(&[])), [delete("owner")]);
        assert_eq!(graph.view("owner").map(|view| view.dependents), Some(vec![]));
    }

    #[test]
    fn orphaning_begins_once() {
        let mut graph = Graph::default();
        graph.observe(identity("owner"), &ObjectMeta::default());
        assert_eq!(graph.observe(identity("owner"), &deleting(ORPHAN)), [Work::Orphan("owner".to_owned())]);
        assert_eq!(graph.observe(identity("owner"), &deleting(ORPHAN)), []);
    }
}

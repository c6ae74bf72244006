//! Keeps the authoriser's memory up to date from the watch caches.

use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::authorizer::Authorizer;
use super::node::NodeGraph;
use super::rbac::{Kind, Policies};
use crate::cacher::entry::Entry;
use crate::cacher::{Cacher, Snapshot, Watcher};

/// Events read at a time.
const BATCH: usize = 256;

/// The caches that the authoriser depends on.
pub struct Sources {
    /// The four of RBAC.
    pub policies: Vec<(Kind, Arc<Cacher>)>,
    /// `pods`.
    pub pods: Option<Arc<Cacher>>,
    /// `persistentvolumes`.
    pub volumes: Option<Arc<Cacher>>,
}

/// Reads all there is and then follows the caches until `shutdown`.
pub fn start(
    authorizer: &Arc<Authorizer>,
    sources: Sources,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    if let Some(volumes) = sources.volumes {
        authorizer.read_volumes_from(volumes);
    }
    let mut policies = Policies::default();
    let mut watchers = Vec::new();
    for (kind, cacher) in sources.policies {
        let snapshot = cacher.snapshot(None, 0);
        for entry in &snapshot.entries {
            policies.apply(kind, entry.namespace(), entry.name(), Some(&entry.value()));
        }
        watchers.push((kind, cacher.watch_from(&snapshot)));
    }
    authorizer.replace_policies(policies);
    for (kind, watcher) in watchers {
        let (authorizer, shutdown) = (Arc::clone(authorizer), shutdown.clone());
        tasks.spawn(async move {
            let apply = |entry: &Entry, object: Option<&Value>| {
                authorizer.apply_policy(kind, entry.namespace(), entry.name(), object);
            };
            let replace = |snapshot: &Snapshot| {
                let present: Vec<_> = snapshot
                    .entries
                    .iter()
                    .map(|entry| (entry.namespace().to_owned(), entry.name().to_owned(), entry.value()))
                    .collect();
                authorizer.replace_kind(kind, &present);
            };
            follow(watcher, shutdown, apply, replace).await;
        });
    }
    if let Some(pods) = sources.pods {
        let snapshot = pods.snapshot(None, 0);
        authorizer.replace_pods(nodes_of(&snapshot));
        let watcher = pods.watch_from(&snapshot);
        let (authorizer, shutdown) = (Arc::clone(authorizer), shutdown.clone());
        tasks.spawn(async move {
            let apply = |entry: &Entry, object: Option<&Value>| {
                authorizer.apply_pod(entry.namespace(), entry.name(), object);
            };
            let replace = |snapshot: &Snapshot| authorizer.replace_pods(nodes_of(snapshot));
            follow(watcher, shutdown, apply, replace).await;
        });
    }
}

/// Applies what happens to the objects of a cache until `shutdown`: one event at a time, or all there is where events were
/// missed.
async fn follow(
    mut watcher: Watcher,
    shutdown: CancellationToken,
    apply: impl Fn(&Entry, Option<&Value>),
    replace: impl Fn(&Snapshot),
) {
    loop {
        match watcher.read(BATCH) {
            Ok(events) if events.is_empty() => tokio::select! {
                () = shutdown.cancelled() => return,
                () = watcher.changed() => {}
            },
            Ok(events) => {
                for event in events {
                    let Some(entry) = event.object.as_ref().or(event.previous.as_ref()) else { continue };
                    apply(entry, event.object.as_ref().map(|entry| entry.value()).as_ref());
                }
            }
            Err(_) => {
                let cacher = Arc::clone(watcher.cacher());
                let snapshot = cacher.snapshot(None, 0);
                watcher = cacher.watch_from(&snapshot);
                replace(&snapshot);
            }
        }
    }
}

fn nodes_of(pods: &Snapshot) -> NodeGraph {
    let mut nodes = NodeGraph::default();
    for entry in &pods.entries {
        nodes.apply(entry.namespace(), entry.name(), Some(&entry.value()));
    }
    nodes
}

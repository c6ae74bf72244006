//! Keeps the authoriser's memory up to date from the watch caches.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::authorizer::Authorizer;
use super::node::NodeGraph;
use super::rbac::{Kind, Policies};
use crate::cacher::Cacher;

/// Events read at a time.
const BATCH: usize = 256;

/// The caches that the authoriser depends on.
pub struct Sources {
    /// The four of RBAC.
    pub policies: Vec<(Kind, Arc<Cacher>)>,
    /// `pods`.
    pub pods: Option<Arc<Cacher>>,
}

/// Reads all there is and then follows the caches until `shutdown`.
pub fn start(
    authorizer: &Arc<Authorizer>,
    sources: Sources,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
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
        tasks.spawn(async move { follow_policies(&authorizer, kind, watcher, shutdown).await });
    }
    if let Some(pods) = sources.pods {
        let snapshot = pods.snapshot(None, 0);
        let mut nodes = NodeGraph::default();
        for entry in &snapshot.entries {
            nodes.apply(entry.namespace(), entry.name(), Some(&entry.value()));
        }
        authorizer.replace_pods(nodes);
        let watcher = pods.watch_from(&snapshot);
        let (authorizer, shutdown) = (Arc::clone(authorizer), shutdown.clone());
        tasks.spawn(async move { follow_pods(&authorizer, watcher, shutdown).await });
    }
}

async fn follow_policies(
    authorizer: &Authorizer,
    kind: Kind,
    mut watcher: crate::cacher::Watcher,
    shutdown: CancellationToken,
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
                    let object = event.object.as_ref().map(|entry| entry.value());
                    authorizer.apply_policy(kind, entry.namespace(), entry.name(), object.as_ref());
                }
            }
            Err(_) => {
                let cacher = Arc::clone(watcher.cacher());
                let snapshot = cacher.snapshot(None, 0);
                watcher = cacher.watch_from(&snapshot);
                let present: Vec<_> = snapshot
                    .entries
                    .iter()
                    .map(|entry| (entry.namespace().to_owned(), entry.name().to_owned(), entry.value()))
                    .collect();
                authorizer.replace_kind(kind, &present);
            }
        }
    }
}

async fn follow_pods(
    authorizer: &Authorizer,
    mut watcher: crate::cacher::Watcher,
    shutdown: CancellationToken,
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
                    let object = event.object.as_ref().map(|entry| entry.value());
                    authorizer.apply_pod(entry.namespace(), entry.name(), object.as_ref());
                }
            }
            Err(_) => {
                let cacher = Arc::clone(watcher.cacher());
                let snapshot = cacher.snapshot(None, 0);
                watcher = cacher.watch_from(&snapshot);
                let mut nodes = NodeGraph::default();
                for entry in &snapshot.entries {
                    nodes.apply(entry.namespace(), entry.name(), Some(&entry.value()));
                }
                authorizer.replace_pods(nodes);
            }
        }
    }
}

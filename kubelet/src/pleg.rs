//! What happens in the runtimes: their events, and now and then a list, in case an event was missed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use wherry_runtimes::{ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState};

use crate::kubelet::{Adopted, Kubelet};
use crate::pod::labels;
use crate::pod::observed::PodObserved;
use crate::runtimes::{NodeRuntime, container_observed, sandbox_observed};

/// Time between two lists.
const RELIST_INTERVAL: Duration = Duration::from_secs(60);
/// Time before a broken event stream is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// Sandboxes and containers of one pod, as listed: id and state.
type Listed = BTreeMap<String, (bool, u8)>;

/// Follows one runtime until the kubelet stops. `subscribed` is told once events flow.
pub(crate) async fn follow(
    kubelet: Arc<Kubelet>,
    runtime: Arc<NodeRuntime>,
    subscribed: tokio::sync::oneshot::Sender<()>,
) {
    let mut subscribed = Some(subscribed);
    let mut last: HashMap<String, Listed> = HashMap::new();
    while !kubelet.shutdown.is_cancelled() {
        let mut events = match runtime.service.events().await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, handler = %runtime.handler, "runtime gives no events");
                futures::stream::pending().boxed()
            }
        };
        match subscribed.take() {
            Some(sender) => {
                let _ = sender.send(());
            }
            // Something may have happened while nobody listened.
            None => relist(&kubelet, &runtime, &mut last).await,
        }
        let mut ticker =
            tokio::time::interval_at(tokio::time::Instant::now() + RELIST_INTERVAL, RELIST_INTERVAL);
        loop {
            tokio::select! {
                () = kubelet.shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => kubelet.workers.deliver(event),
                    Some(Err(_)) => relist(&kubelet, &runtime, &mut last).await,
                    None => break,
                },
                _ = ticker.tick() => relist(&kubelet, &runtime, &mut last).await,
            }
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

/// Lists everything; workers of pods that changed since the last list look for themselves, and what belongs to no pod
/// is removed.
async fn relist(kubelet: &Arc<Kubelet>, runtime: &Arc<NodeRuntime>, last: &mut HashMap<String, Listed>) {
    let Some(now) = list(runtime).await else { return };
    for (uid, listed) in &now {
        match kubelet.workers.get(uid) {
            Some(mailbox) if last.get(uid) != Some(listed) => mailbox.post(|inbox| inbox.refresh = true),
            _ => {}
        }
    }
    for uid in last.keys().filter(|uid| !now.contains_key(*uid)) {
        if let Some(mailbox) = kubelet.workers.get(uid) {
            mailbox.post(|inbox| inbox.refresh = true);
        }
    }
    // Twice in a row without a worker: nobody wants it. Before the pods of this node are known, nobody can say so.
    if !kubelet.pods.has_synced() || kubelet.has_adopted() {
        *last = now;
        return;
    }
    let orphans: Vec<String> = now
        .keys()
        .filter(|uid| last.contains_key(*uid) && kubelet.workers.get(uid).is_none())
        .cloned()
        .collect();
    for uid in orphans {
        remove_pod(kubelet, runtime, &uid).await;
    }
    *last = now;
}

async fn list(runtime: &NodeRuntime) -> Option<HashMap<String, Listed>> {
    let sandboxes = runtime.service.list_pod_sandbox(&PodSandboxFilter::default()).await.ok()?;
    let containers = runtime.service.list_containers(&ContainerFilter::default()).await.ok()?;
    let mut pods: HashMap<String, Listed> = HashMap::new();
    for sandbox in sandboxes {
        let state = u8::from(sandbox.state == PodSandboxState::Ready);
        pods.entry(sandbox.metadata.uid).or_default().insert(sandbox.id, (true, state));
    }
    for container in containers {
        let state = match container.state {
            ContainerState::Created => 0,
            ContainerState::Running => 1,
            ContainerState::Exited => 2,
            ContainerState::Unknown => 3,
        };
        if let Some(uid) = container.labels.get(labels::POD_UID) {
            pods.entry(uid.clone()).or_default().insert(container.id, (false, state));
        }
    }
    Some(pods)
}

async fn remove_pod(kubelet: &Kubelet, runtime: &NodeRuntime, uid: &str) {
    let filter = PodSandboxFilter {
        label_selector: [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
        ..PodSandboxFilter::default()
    };
    let Ok(sandboxes) = runtime.service.list_pod_sandbox(&filter).await else { return };
    for sandbox in sandboxes {
        let _ = runtime.service.stop_pod_sandbox(&sandbox.id).await;
        if let Err(error) = runtime.service.remove_pod_sandbox(&sandbox.id).await {
            tracing::warn!(%error, sandbox = %sandbox.id, "orphaned sandbox cannot be removed");
        }
    }
    let _ = crate::volumes::mount::tear_down(&kubelet.pod_dir(uid));
}

/// Reads what runs already, so that workers take it over instead of starting it anew.
pub(crate) async fn adopt(
    kubelet: &Kubelet,
    runtime: &Arc<NodeRuntime>,
) -> Result<(), wherry_runtimes::Error> {
    let sandboxes = runtime.service.list_pod_sandbox(&PodSandboxFilter::default()).await?;
    let containers = runtime.service.list_containers(&ContainerFilter::default()).await?;
    let mut pods: HashMap<String, PodObserved> = HashMap::new();
    for sandbox in sandboxes {
        let uid = sandbox.metadata.uid.clone();
        if let Ok(answer) = runtime.service.pod_sandbox_status(&sandbox.id).await {
            pods.entry(uid).or_default().sandboxes.push(sandbox_observed(&answer.status));
        }
    }
    for container in containers {
        let Some(uid) = container.labels.get(labels::POD_UID) else { continue };
        if let Ok(status) = runtime.service.container_status(&container.id).await {
            let seen = container_observed(&status, &container.pod_sandbox_id);
            pods.entry(uid.clone()).or_default().containers.push(seen);
        }
    }
    let mut adopted = kubelet.adopted.lock().unwrap_or_else(PoisonError::into_inner);
    for (uid, mut observed) in pods {
        observed.sort();
        adopted.insert(uid, Adopted { runtime: runtime.clone(), observed });
    }
    Ok(())
}

/// Removes what ran for pods that this node does not have any more.
pub(crate) async fn remove_orphans(kubelet: &Kubelet) {
    let orphans: Vec<(String, Adopted)> =
        kubelet.adopted.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
    for (uid, adopted) in orphans {
        tracing::info!(%uid, "removing what is left of a pod that is not on this node any more");
        for container in &adopted.observed.containers {
            let _ = adopted.runtime.service.stop_container(&container.id, Duration::from_secs(30)).await;
        }
        remove_pod(kubelet, &adopted.runtime, &uid).await;
    }
}

//! What happens in the runtimes: their events, and now and then a list, in case an event was missed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use wherry_runtimes::{ContainerFilter, ContainerState, EventStream, PodSandboxFilter, PodSandboxState};

use crate::config::RuntimeRole;
use crate::kubelet::{Adopted, Kubelet};
use crate::pod::labels;
use crate::pod::observed::PodObserved;
use crate::runtimes::{NodeRuntime, container_observed, sandbox_observed};

/// Time between two lists.
const RELIST_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two lists of a runtime that gives no events. Source: the kubelet's own period.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time before a broken event stream is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// Sandboxes and containers of one pod, as listed: id and state.
type Listed = BTreeMap<String, (bool, u8)>;

/// Follows one runtime until the kubelet stops. `subscribed` is told once events flow.
///
/// A broken stream may mean a new process behind the same socket: it is told its configuration again, and every worker
/// looks for itself what is left of its pod.
pub(crate) async fn follow(
    kubelet: Arc<Kubelet>,
    runtime: Arc<NodeRuntime>,
    subscribed: tokio::sync::oneshot::Sender<()>,
) {
    let mut subscribed = Some(subscribed);
    let mut last: HashMap<String, Listed> = HashMap::new();
    let mut is_reported = false;
    loop {
        match open(&kubelet, &runtime).await {
            Ok((events, interval)) => {
                is_reported = false;
                runtime.set_problem(None);
                match subscribed.take() {
                    Some(sender) if runtime.role == RuntimeRole::Required || !sender.is_closed() => {
                        let _ = sender.send(());
                    }
                    // Something may have happened while nobody listened.
                    _ => {
                        refresh_all(&kubelet);
                        relist(&kubelet, &runtime, &mut last).await;
                    }
                }
                read(&kubelet, &runtime, events, interval, &mut last).await;
                if runtime.role == RuntimeRole::Optional {
                    runtime.set_problem(Some("its events ended; connecting again".to_owned()));
                }
            }
            Err(error) if is_reported => {
                runtime.set_problem(Some(error.to_string()));
                tracing::debug!(%error, handler = %runtime.handler, "runtime gives no events")
            }
            Err(error) => {
                is_reported = true;
                runtime.set_problem(Some(error.to_string()));
                tracing::warn!(%error, handler = %runtime.handler, "runtime gives no events; asking again");
            }
        }
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = tokio::time::sleep(RECONNECT_DELAY) => {}
        }
    }
}

/// Configures the runtime, and then its events, with the time between two lists.
async fn open(
    kubelet: &Kubelet,
    runtime: &NodeRuntime,
) -> Result<(EventStream, Duration), wherry_runtimes::Error> {
    runtime.introduce().await?;
    runtime.configure(&kubelet.network.range()).await?;
    match runtime.service.events().await {
        Ok(events) => Ok((events, RELIST_INTERVAL)),
        Err(wherry_runtimes::Error::Unimplemented(_)) => {
            Ok((futures::stream::pending().boxed(), POLL_INTERVAL))
        }
        Err(error) => Err(error),
    }
}

/// Delivers events until the stream breaks or the kubelet stops.
async fn read(
    kubelet: &Arc<Kubelet>,
    runtime: &Arc<NodeRuntime>,
    mut events: EventStream,
    interval: Duration,
    last: &mut HashMap<String, Listed>,
) {
    let mut ticker = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    loop {
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            event = events.next() => match event {
                Some(Ok(event)) => kubelet.workers.deliver(event),
                Some(Err(wherry_runtimes::Error::DataLoss(_))) => refresh_all(kubelet),
                Some(Err(_)) | None => return,
            },
            _ = ticker.tick() => relist(kubelet, runtime, last).await,
        }
    }
}

/// Every worker asks the runtime for its pod.
fn refresh_all(kubelet: &Kubelet) {
    for uid in kubelet.workers.uids() {
        if let Some(mailbox) = kubelet.workers.get(&uid) {
            mailbox.post(|inbox| inbox.refresh = true);
        }
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
    // Guests are in sandboxes of their own, which count for those whose network they borrow.
    let mut lenders: HashMap<String, String> = HashMap::new();
    for sandbox in sandboxes {
        if let Some(lender) = sandbox.labels.get(labels::SANDBOX_OF) {
            lenders.insert(sandbox.id.clone(), lender.clone());
            continue;
        }
        let uid = sandbox.metadata.uid.clone();
        if let Ok(answer) = runtime.service.pod_sandbox_status(&sandbox.id).await {
            pods.entry(uid).or_default().sandboxes.push(sandbox_observed(&answer.status));
        }
    }
    for container in containers {
        let Some(uid) = container.labels.get(labels::POD_UID) else { continue };
        if let Ok(status) = runtime.service.container_status(&container.id).await {
            let sandbox_id = lenders.get(&container.pod_sandbox_id).unwrap_or(&container.pod_sandbox_id);
            let seen = container_observed(&status, sandbox_id);
            pods.entry(uid.clone()).or_default().containers.push(seen);
        }
    }
    let mut adopted = kubelet.adopted.lock().unwrap_or_else(PoisonError::into_inner);
    for (uid, observed) in pods {
        let owns_sandbox = !observed.sandboxes.is_empty();
        let known = adopted
            .entry(uid)
            .or_insert_with(|| Adopted { runtime: runtime.clone(), observed: PodObserved::default() });
        known.runtime = match owns_sandbox {
            true => kubelet.runtimes.of_pods_in(runtime),
            // Guests alone: their sandbox is the other runtime's.
            false => kubelet.runtimes.mixed_runtime().unwrap_or_else(|| runtime.clone()),
        };
        known.observed.sandboxes.extend(observed.sandboxes);
        known.observed.containers.extend(observed.containers);
        known.observed.sort();
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

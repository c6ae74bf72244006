//! One worker per pod, and the mailbox through which everybody tells it what happened.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;
use wherry_runtimes::{ContainerEventResponse, ContainerStatus, PodSandboxStatus};

use super::observed::Verdict;
use crate::probes::ProbeKind;

/// News for a pod. Newer news replace older ones of the same kind: nothing here grows without bound.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The pod's definition.
    pub(crate) pod: Option<Arc<Pod>>,
    /// The mirror pod of a static pod.
    pub(crate) mirror: Option<Arc<Pod>>,
    /// The definition is gone.
    pub(crate) is_removed: bool,
    /// A ConfigMap or Secret that it names changed.
    pub(crate) sources_changed: bool,
    /// The pod has to leave the node; why.
    pub(crate) eviction: Option<String>,
    /// Ask the runtime for everything again.
    pub(crate) refresh: bool,
    /// The sandbox.
    pub(crate) sandboxes: HashMap<String, PodSandboxStatus>,
    /// Containers by id, with their sandbox.
    pub(crate) containers: HashMap<String, (ContainerStatus, String)>,
    /// Probes' verdicts by container id.
    pub(crate) verdicts: HashMap<(String, ProbeKind), Verdict>,
}

/// Where news for one pod arrive.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    notify: Notify,
}

impl Mailbox {
    /// Leaves news and wakes the worker.
    pub(crate) fn post(&self, write: impl FnOnce(&mut Inbox)) {
        write(&mut lock(&self.inbox));
        self.notify.notify_one();
    }

    /// Waits for news. Cancel-safe.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Takes all news.
    pub(crate) fn take(&self) -> Inbox {
        std::mem::take(&mut *lock(&self.inbox))
    }
}

/// The mailboxes of all workers, by pod uid.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    mailboxes: Mutex<HashMap<String, Arc<Mailbox>>>,
}

impl Workers {
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<Mailbox>> {
        lock(&self.mailboxes).get(uid).cloned()
    }

    /// The mailbox of a pod, and whether it is new.
    pub(crate) fn get_or_insert(&self, uid: &str) -> (Arc<Mailbox>, bool) {
        let mut mailboxes = lock(&self.mailboxes);
        match mailboxes.get(uid) {
            Some(mailbox) => (mailbox.clone(), false),
            None => {
                let mailbox = Arc::<Mailbox>::default();
                mailboxes.insert(uid.to_owned(), mailbox.clone());
                (mailbox, true)
            }
        }
    }

    pub(crate) fn remove(&self, uid: &str) {
        lock(&self.mailboxes).remove(uid);
    }

    pub(crate) fn uids(&self) -> BTreeSet<String> {
        lock(&self.mailboxes).keys().cloned().collect()
    }

    /// Tells the pods that an object that they name changed.
    pub(crate) fn sources_changed(&self, uids: &BTreeSet<String>) {
        for mailbox in uids.iter().filter_map(|uid| self.get(uid)) {
            mailbox.post(|inbox| inbox.sources_changed = true);
        }
    }

    /// Gives a runtime's event to its pod.
    pub(crate) fn deliver(&self, event: ContainerEventResponse) {
        let Some(sandbox) = event.pod_sandbox_status else { return };
        let Some(mailbox) = self.get(&sandbox.metadata.uid) else { return };
        mailbox.post(|inbox| {
            // A sandbox that borrows another's network is no sandbox of its own to the pod.
            let lender = sandbox.labels.get(super::labels::SANDBOX_OF);
            let id = lender.unwrap_or(&sandbox.id).clone();
            for container in event.containers_statuses {
                inbox.containers.insert(container.id.clone(), (container, id.clone()));
            }
            if lender.is_none() {
                inbox.sandboxes.insert(id, sandbox);
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

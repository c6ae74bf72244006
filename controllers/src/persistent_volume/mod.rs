//! Binds claims to volumes: each names the other, and both say so in their status.
//!
//! Order of a binding, so that it can be taken up at any point: the volume's reference to the claim, the volume's phase, the
//! claim's name of the volume, the claim's phase.

mod claim_plan;
mod volume_plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, PostParams};
use wherry_client::volumes::{claim_of, class_of_claim, ephemeral_claim_name, volume_name};
use wherry_client::{
    Change, EventRecorder, Informer, Lifecycle, ObjectKey, WorkQueue, object_ref, run_workers,
};

use crate::error::Error;
use crate::{Context, pods};
pub(crate) use claim_plan::Note;
use claim_plan::{
    ClaimStep, Surroundings, bound_claim, bound_volume, plan_claim, with_bound_status, with_lost_status,
    with_provisioner,
};
use volume_plan::{plan_volume, unbound};

/// The index of pods by the claims that they use, as `namespace/name`.
pub(crate) const BY_CLAIM: &str = "claim";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    Claim(ObjectKey),
    Volume(String),
}

/// Indexes pods by the claims that they use.
pub(crate) fn index_by_claim(pods: &Informer<Pod>) {
    pods.add_index(BY_CLAIM, |pod| {
        claims_of(pod).into_iter().map(|claim| format!("{}/{claim}", pods::namespace(pod))).collect()
    });
}

/// The names of the claims that a pod uses.
pub(crate) fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.is_some().then(|| ephemeral_claim_name(pods::name(pod), &volume.name)),
    };
    volumes.iter().filter_map(claim).collect()
}

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let binder = Arc::new(Binder {
        client: context.client.clone(),
        claims: context.informers.of(),
        volumes: context.informers.of(),
        classes: context.informers.of(),
        pods: context.informers.of(),
        queue: WorkQueue::new(),
        events: context.recorder("persistentvolume-controller"),
    });
    index_by_claim(&binder.pods);
    binder.subscribe();
    let synced = futures::join!(
        binder.claims.wait_synced(),
        binder.volumes.wait_synced(),
        binder.classes.wait_synced(),
        binder.pods.wait_synced()
    );
    if synced != (true, true, true, true) {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    let queue = binder.queue.clone();
    run_workers(queue, context.config.workers, lifecycle, move |task| {
        let binder = binder.clone();
        async move {
            match task {
                Task::Claim(key) => binder.sync_claim(&key).await,
                Task::Volume(name) => binder.sync_volume(&name).await,
            }
        }
    })
    .await;
    Ok(())
}

struct Binder {
    client: kube::Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    queue: WorkQueue<Task>,
    events: EventRecorder,
}

impl Binder {
    fn subscribe(&self) {
        let queue = self.queue.clone();
        self.claims.subscribe(move |change| {
            let claim = change.object();
            queue.add(Task::Claim(ObjectKey::of(&**claim)));
            if !volume_name(claim).is_empty() {
                queue.add(Task::Volume(volume_name(claim).to_owned()));
            }
        });
        let (queue, claims) = (self.queue.clone(), self.claims.store().clone());
        self.volumes.subscribe(move |change| {
            let volume = change.object();
            queue.add(Task::Volume(volume.metadata.name.clone().unwrap_or_default()));
            match claim_of(volume) {
                Some(claim) => queue.add(Task::Claim(ObjectKey::new(
                    claim.namespace.clone().unwrap_or_default(),
                    claim.name.clone().unwrap_or_default(),
                ))),
                // It may be what some claim has waited for.
                None if !matches!(change, Change::Deleted(_)) => {
                    for claim in claims.list() {
                        if volume_name(&claim).is_empty() {
                            queue.add(Task::Claim(ObjectKey::of(&*claim)));
                        }
                    }
                }
                None => {}
            }
        });
        let (queue, claims) = (self.queue.clone(), self.claims.store().clone());
        self.classes.subscribe(move |change| {
            if matches!(change, Change::Deleted(_)) {
                return;
            }
            for claim in claims.list() {
                if volume_name(&claim).is_empty() {
                    queue.add(Task::Claim(ObjectKey::of(&*claim)));
                }
            }
        });
    }

    async fn sync_claim(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(claim) = self.claims.store().get(&key.namespace, &key.name) else { return Ok(()) };
        let volumes = self.volumes.store().list();
        let class = self.classes.store().get("", class_of_claim(&claim));
        let default_class = self.default_class();
        let users = self.pods.store().indexed(BY_CLAIM, &format!("{}/{}", key.namespace, key.name));
        let waiting_pods: Vec<String> = users
            .iter()
            .filter(|pod| pods::node_name(pod).is_empty() && pods::is_active(pod))
            .map(|pod| pods::name(pod).to_owned())
            .collect();
        let around = Surroundings {
            volumes: &volumes,
            class: class.as_deref(),
            default_class: default_class.as_deref(),
            waiting_pods: &waiting_pods,
        };
        match plan_claim(&claim, around) {
            ClaimStep::Wait(note) => {
                if let Some(note) = note {
                    self.tell_claim(&claim, &note);
                }
                Ok(())
            }
            ClaimStep::Bind { volume } => self.bind(&claim, &volume).await,
            ClaimStep::Lose(note) => {
                if let Some(changed) = with_lost_status(&claim) {
                    self.replace_claim_status(&changed).await?;
                    self.tell_claim(&claim, &note);
                }
                Ok(())
            }
            ClaimStep::Provision { provisioner, note } => {
                if let Some(changed) = with_provisioner(&claim, &provisioner) {
                    self.replace_claim(&changed).await?;
                }
                self.tell_claim(&claim, &note);
                Ok(())
            }
            ClaimStep::UseClass(class) => {
                let mut changed = (*claim).clone();
                changed.spec.get_or_insert_default().storage_class_name = Some(class);
                self.replace_claim(&changed).await.map(drop)
            }
        }
    }

    /// The youngest of the classes marked as default.
    fn default_class(&self) -> Option<String> {
        const MARKS: [&str; 2] = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let is_default = |class: &Arc<StorageClass>| {
            let annotations = class.metadata.annotations.as_ref();
            MARKS
                .iter()
                .any(|mark| annotations.and_then(|a| a.get(*mark)).is_some_and(|value| value == "true"))
        };
        let classes = self.classes.store().list();
        let order = |class: &&Arc<StorageClass>| {
            let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, std::cmp::Reverse(class.metadata.name.clone()))
        };
        classes.iter().filter(|class| is_default(class)).max_by_key(order)?.metadata.name.clone()
    }

    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &str) -> Result<(), Error> {
        let Some(volume) = self.volumes.store().get("", volume) else { return Ok(()) };
        let mut current = (*volume).clone();
        if let Some(bound) = bound_volume(&current, claim) {
            current = self.replace_volume(&bound).await?;
        }
        if current.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
            current = self.set_phase(&current, "Bound", None).await?;
        }
        let name = current.metadata.name.as_deref().unwrap_or_default();
        let mut claim = claim.clone();
        if let Some(bound) = bound_claim(&claim, name) {
            claim = self.replace_claim(&bound).await?;
        }
        if let Some(changed) = with_bound_status(&claim, &current) {
            self.replace_claim_status(&changed).await?;
            tracing::debug!(volume = name, claim = %ObjectKey::of(&claim), "bound");
        }
        Ok(())
    }

    async fn sync_volume(&self, name: &str) -> Result<(), Error> {
        let Some(volume) = self.volumes.store().get("", name) else { return Ok(()) };
        let claim = match claim_of(&volume) {
            None => None,
            Some(reference) => self.claim_of_reference(reference).await?,
        };
        let plan = plan_volume(&volume, claim.as_deref());
        if let Some(note) = &plan.note {
            self.events.event(&object_ref(&*volume), note.kind, note.reason, note.message.clone());
        }
        let mut current = (*volume).clone();
        if let Some(how) = plan.unbind {
            current = self.replace_volume(&unbound(&current, how)).await?;
            return self.set_phase(&current, "Available", None).await.map(drop);
        }
        if let Some(phase) = plan.phase {
            current = self.set_phase(&current, phase, plan.failure.as_ref()).await?;
        }
        if let Some(failure) = &plan.failure {
            self.events.event(&object_ref(&current), failure.kind, failure.reason, failure.message.clone());
        }
        if plan.sync_claim
            && let Some(reference) = claim_of(&current)
        {
            let (namespace, name) = (reference.namespace.clone(), reference.name.clone());
            self.queue
                .add(Task::Claim(ObjectKey::new(namespace.unwrap_or_default(), name.unwrap_or_default())));
        }
        Ok(())
    }

    /// The claim that a volume names. Before it counts as gone the API server is asked: data may depend on it.
    async fn claim_of_reference(
        &self,
        reference: &k8s_openapi::api::core::v1::ObjectReference,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let (namespace, name) = (
            reference.namespace.as_deref().unwrap_or_default(),
            reference.name.as_deref().unwrap_or_default(),
        );
        let uid = reference.uid.as_deref().unwrap_or_default();
        let is_meant =
            |claim: &PersistentVolumeClaim| uid.is_empty() || claim.metadata.uid.as_deref() == Some(uid);
        if let Some(claim) = self.claims.store().get(namespace, name).filter(|claim| is_meant(claim)) {
            return Ok(Some(claim));
        }
        if uid.is_empty() {
            return Ok(None);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let fresh = api.get_opt(name).await.map_err(Error::api("looking for a claim"))?;
        Ok(fresh.filter(is_meant).map(Arc::new))
    }

    fn tell_claim(&self, claim: &PersistentVolumeClaim, note: &Note) {
        self.events.event(&object_ref(claim), note.kind, note.reason, note.message.clone());
    }

    async fn replace_volume(&self, volume: &PersistentVolume) -> Result<PersistentVolume, Error> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        api.replace(name, &PostParams::default(), volume).await.map_err(Error::api("updating a volume"))
    }

    async fn set_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        failure: Option<&Note>,
    ) -> Result<PersistentVolume, Error> {
        let mut changed = volume.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.reason = None;
        status.message = failure.map(|note| note.message.clone());
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        api.replace_status(name, &PostParams::default(), &changed)
            .await
            .map_err(Error::api("updating a volume's status"))
    }

    async fn replace_claim(&self, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, Error> {
        self.claims_api(claim)
            .replace(claim.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), claim)
            .await
            .map_err(Error::api("updating a claim"))
    }

    async fn replace_claim_status(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        self.claims_api(claim)
            .replace_status(name, &PostParams::default(), claim)
            .await
            .map(drop)
            .map_err(Error::api("updating a claim's status"))
    }

    fn claims_api(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default())
    }
}

//! Namespaces that are being deleted: their content goes, then they may.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, PostParams};
use wherry_client::{Change, Informer, Lifecycle, WorkQueue, is_conflict, is_not_found, run_workers};

use crate::discovery::{ServedResource, preferred_resources};
use crate::error::{Chain, Error};
use crate::{Context, pods};
use plan::{Outcome, conditions};

/// How many resources are emptied at the same time.
const CONCURRENT_RESOURCES: usize = 8;
/// The finalizer that this controller takes away last.
const FINALIZER: &str = "kubernetes";
/// How soon a namespace with content is looked at again at first; doubles up to a minute. What pods it waits for is
/// seen at once.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let controller = Arc::new(NamespaceController {
        client: context.client.clone(),
        namespaces: context.informers.of(),
        pods: context.informers.of(),
    });
    let queue = WorkQueue::with_delays(FIRST_DELAY, LONGEST_DELAY);
    let of_namespaces = queue.clone();
    controller.namespaces.subscribe(move |change| {
        let namespace = change.object();
        let was_deleting = change.old().is_some_and(|old| old.metadata.deletion_timestamp.is_some());
        // Once is enough: later changes are mostly this controller's own.
        if namespace.metadata.deletion_timestamp.is_some()
            && !was_deleting
            && !matches!(change, Change::Deleted(_))
        {
            of_namespaces.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    let (of_pods, namespaces) = (queue.clone(), controller.namespaces.store().clone());
    controller.pods.subscribe(move |change| {
        let Change::Deleted(pod) = change else { return };
        let namespace = pods::namespace(pod);
        if namespaces.get("", namespace).is_some_and(|found| found.metadata.deletion_timestamp.is_some()) {
            of_pods.add(namespace.to_owned());
        }
    });
    if !(controller.namespaces.wait_synced().await && controller.pods.wait_synced().await) {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    run_workers(queue, context.config.workers.max(10), lifecycle, move |name: String| {
        let controller = controller.clone();
        async move { controller.sync(&name).await }
    })
    .await;
    Ok(())
}

struct NamespaceController {
    client: kube::Client,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
}

impl NamespaceController {
    async fn sync(&self, name: &str) -> Result<(), Error> {
        let is_deleted = |namespace: &Arc<Namespace>| namespace.metadata.deletion_timestamp.is_some();
        if !self.namespaces.store().get("", name).is_some_and(|namespace| is_deleted(&namespace)) {
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let Some(namespace) = api.get_opt(name).await.map_err(Error::api("reading the namespace"))? else {
            return Ok(());
        };
        let finalizers =
            namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none()
            || !finalizers.iter().any(|finalizer| finalizer == FINALIZER)
        {
            return Ok(());
        }
        let outcome = self.delete_content(name).await;
        let is_empty = outcome.is_empty();
        let old =
            namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        // The conditions of a namespace that goes at once are nobody's news.
        if !is_empty && let Some(conditions) = conditions(old, &outcome, Timestamp::now()) {
            let mut updated = namespace.clone();
            let status = updated.status.get_or_insert_default();
            status.phase = Some("Terminating".to_owned());
            status.conditions = Some(conditions);
            match api.replace_status(name, &PostParams::default(), &updated).await {
                Err(error) if is_not_found(&error) || is_conflict(&error) => {}
                outcome => drop(outcome.map_err(Error::api("writing the status of a namespace"))?),
            }
        }
        if is_empty {
            return self.finalize(namespace).await;
        }
        Err(Error::ContentRemains { namespace: name.to_owned(), remaining: outcome.summary() })
    }

    async fn delete_content(&self, namespace: &str) -> Outcome {
        let resources = match preferred_resources(&self.client).await {
            Ok(resources) => resources,
            Err(error) => return Outcome { discovery_error: Some(error.to_string()), ..Outcome::default() },
        };
        let deletable = resources.into_iter().filter(|served| {
            served.is_namespaced
                && served.has(&["list"])
                && (served.has(&["deletecollection"]) || served.has(&["delete"]))
        });
        // Pods go first: what protects the others from them (network policies, quotas) stays until they are gone.
        let (of_pods, of_others): (Vec<_>, Vec<_>) = deletable.partition(is_pods);
        let outcome = self.delete_resources(namespace, of_pods).await;
        if outcome.is_empty() { self.delete_resources(namespace, of_others).await } else { outcome }
    }

    async fn delete_resources(&self, namespace: &str, resources: Vec<ServedResource>) -> Outcome {
        let partial: Vec<_> = stream::iter(resources)
            .map(|served| async move { self.delete_resource(namespace, &served).await })
            .buffer_unordered(CONCURRENT_RESOURCES)
            .collect()
            .await;
        let mut outcome = Outcome::default();
        for resource in partial {
            match resource {
                Ok(left) => {
                    outcome.remaining.extend(left.remaining);
                    for (finalizer, count) in left.finalizers {
                        *outcome.finalizers.entry(finalizer).or_default() += count;
                    }
                }
                Err(error) => outcome.content_errors.push(Chain(&error).to_string()),
            }
        }
        outcome.content_errors.sort();
        outcome
    }

    /// Deletes all objects of one resource; what is left afterwards.
    async fn delete_resource(&self, namespace: &str, served: &ServedResource) -> Result<Outcome, Error> {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.client.clone(), namespace, &served.resource);
        let objects = self.list(&api).await?;
        if objects.is_empty() {
            return Ok(Outcome::default());
        }
        let params = DeleteParams::background();
        if served.has(&["deletecollection"]) {
            let everything: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &served.resource);
            let deleted = everything.delete_collection(&params, &ListParams::default()).await;
            deleted.map_err(Error::api("deleting a collection"))?;
        } else {
            let everything: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &served.resource);
            for name in objects.iter().filter_map(|object| object.metadata.name.as_deref()) {
                match everything.delete(name, &params).await {
                    Err(error) if !is_not_found(&error) => {
                        return Err(Error::api("deleting an object")(error));
                    }
                    _ => {}
                }
            }
        }
        let left = self.list(&api).await?;
        let mut outcome = Outcome::default();
        if !left.is_empty() {
            let resource = format!("{}.{}", served.resource.plural, served.resource.group);
            outcome.remaining.insert(resource, left.len());
        }
        for finalizer in left.into_iter().flat_map(|object| object.metadata.finalizers.unwrap_or_default()) {
            *outcome.finalizers.entry(finalizer).or_default() += 1;
        }
        Ok(outcome)
    }

    async fn list(
        &self,
        api: &Api<PartialObjectMeta<DynamicObject>>,
    ) -> Result<Vec<PartialObjectMeta<DynamicObject>>, Error> {
        match api.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            Err(error) => Err(Error::api("listing what is left")(error)),
        }
    }

    /// Takes the finalizer away, which lets the API server remove the namespace.
    async fn finalize(&self, mut namespace: Namespace) -> Result<(), Error> {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let body = serde_json::to_vec(&namespace).unwrap_or_default();
        let request = Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| Error::api("finalizing a namespace")(kube::Error::HttpError(error)))?;
        match self.client.request::<Namespace>(request).await {
            Err(error) if is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).map_err(Error::api("finalizing a namespace")),
        }
    }
}

fn is_pods(served: &ServedResource) -> bool {
    served.resource.group.is_empty() && served.resource.plural == "pods"
}

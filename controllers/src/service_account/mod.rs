//! The `default` ServiceAccount of each namespace.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use wherry_client::retry::is_namespace_terminating;
use wherry_client::{Change, Informer, Lifecycle, Selection, WorkQueue, is_already_exists, is_not_found};

use crate::Context;
use crate::error::Error;

/// The ServiceAccount that pods use which name none.
const DEFAULT: &str = "default";

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let namespaces: Informer<Namespace> = context.informers.of();
    let selection = Selection::fields(format!("metadata.name={DEFAULT}"));
    let accounts: Informer<ServiceAccount> = context.informers.of_selected(selection);
    let queue: WorkQueue<String> = WorkQueue::new();
    subscribe(&namespaces, &accounts, &queue);
    let client = context.client.clone();
    let stores = Arc::new((namespaces.store().clone(), accounts.store().clone()));
    let synced = async move { namespaces.wait_synced().await && accounts.wait_synced().await };
    let sync = move |namespace: String| {
        let (client, stores) = (client.clone(), stores.clone());
        async move {
            let is_wanted = stores.0.get("", &namespace).is_some_and(|namespace| is_active(&namespace));
            if !is_wanted || stores.1.get(&namespace, DEFAULT).is_some() {
                return Ok(());
            }
            let metadata = ObjectMeta {
                name: Some(DEFAULT.to_owned()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            let api: Api<ServiceAccount> = Api::namespaced(client, &namespace);
            match api.create(&PostParams::default(), &account).await {
                Err(error) if may_be_left(&error) => Ok(()),
                outcome => outcome.map(drop).map_err(Error::api("creating the default service account")),
            }
        }
    };
    context.work(queue, synced, lifecycle, sync).await
}

fn subscribe(
    namespaces: &Informer<Namespace>,
    accounts: &Informer<ServiceAccount>,
    queue: &WorkQueue<String>,
) {
    let of_namespaces = queue.clone();
    namespaces.subscribe(move |change| {
        if is_active(change.object()) {
            of_namespaces.add(change.object().metadata.name.clone().unwrap_or_default());
        }
    });
    let of_accounts = queue.clone();
    accounts.subscribe(move |change| {
        if let Change::Deleted(account) = change {
            of_accounts.add(account.metadata.namespace.clone().unwrap_or_default());
        }
    });
}

/// Whether the namespace is not being deleted.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

/// Whether a failed creation asks for nothing more: it is there, or its namespace is going.
pub(crate) fn may_be_left(error: &kube::Error) -> bool {
    is_already_exists(error) || is_not_found(error) || is_namespace_terminating(error)
}

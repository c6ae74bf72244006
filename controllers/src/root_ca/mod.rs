//! The ConfigMap `kube-root-ca.crt` of each namespace: how pods know that it is the API server they speak to.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use wherry_client::{Informer, Lifecycle, Selection, Store, WorkQueue};

use crate::Context;
use crate::error::Error;
use crate::service_account::{is_active, may_be_left};

/// The ConfigMap's name.
const NAME: &str = "kube-root-ca.crt";
/// The key of the certificate.
const KEY: &str = "ca.crt";
/// The annotation that explains it.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal \
     service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let Some(certificate) = context.config.root_ca_pem.clone() else {
        lifecycle.readiness.set_ready();
        lifecycle.shutdown.cancelled().await;
        return Ok(());
    };
    let selection = Selection::fields(format!("metadata.name={NAME}"));
    let namespaces: Informer<Namespace> = context.informers.of();
    let config_maps: Informer<ConfigMap> = context.informers.of_selected(selection);
    let queue: WorkQueue<String> = WorkQueue::new();
    let of_namespaces = queue.clone();
    namespaces.subscribe(move |change| {
        if is_active(change.object()) {
            of_namespaces.add(change.object().metadata.name.clone().unwrap_or_default());
        }
    });
    let of_config_maps = queue.clone();
    config_maps.subscribe(move |change| {
        of_config_maps.add(change.object().metadata.namespace.clone().unwrap_or_default())
    });
    let publisher = Arc::new(Publisher {
        client: context.client.clone(),
        namespaces: namespaces.store().clone(),
        config_maps: config_maps.store().clone(),
        certificate,
    });
    let synced = async move { namespaces.wait_synced().await && config_maps.wait_synced().await };
    let sync = move |namespace: String| {
        let publisher = publisher.clone();
        async move { publisher.sync(&namespace).await }
    };
    context.work(queue, synced, lifecycle, sync).await
}

struct Publisher {
    client: kube::Client,
    namespaces: Store<Namespace>,
    config_maps: Store<ConfigMap>,
    certificate: String,
}

impl Publisher {
    async fn sync(&self, namespace: &str) -> Result<(), Error> {
        if !self.namespaces.get("", namespace).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(());
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let existing = self.config_maps.get(namespace, NAME);
        let is_new = existing.is_none();
        let Some(config_map) = wanted(existing.as_deref(), namespace, &self.certificate) else {
            return Ok(());
        };
        let outcome = match is_new {
            true => api.create(&PostParams::default(), &config_map).await,
            false => api.replace(NAME, &PostParams::default(), &config_map).await,
        };
        match outcome {
            Err(error) if may_be_left(&error) => Ok(()),
            outcome => outcome.map(drop).map_err(Error::api("publishing the root certificate")),
        }
    }
}

/// The ConfigMap as it is to be written; `None` when it is right already.
fn wanted(existing: Option<&ConfigMap>, namespace: &str, certificate: &str) -> Option<ConfigMap> {
    let mut wanted = existing.cloned().unwrap_or_else(|| {
        let (name, namespace) = (Some(NAME.to_owned()), Some(namespace.to_owned()));
        ConfigMap {
            metadata: ObjectMeta { name, namespace, ..ObjectMeta::default() },
            ..ConfigMap::default()
        }
    });
    wanted.data = Some(BTreeMap::from([(KEY.to_owned(), certificate.to_owned())]));
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.insert(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
    (existing != Some(&wanted)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_map_is_written_when_it_is_missing_or_was_changed() {
        let first = wanted(None, "shop", "PEM").expect("it is created");
        assert_eq!(
            (first.metadata.name.as_deref(), first.metadata.namespace.as_deref()),
            (Some(NAME), Some("shop"))
        );
        assert_eq!(wanted(Some(&first), "shop", "PEM"), None);
        let renewed = wanted(Some(&first), "shop", "PEM2").expect("it is updated");
        assert_eq!(renewed.data.and_then(|data| data.get(KEY).cloned()), Some("PEM2".to_owned()));
        let mut tampered = first.clone();
        tampered.data.get_or_insert_default().insert("extra".to_owned(), "x".to_owned());
        assert_eq!(wanted(Some(&tampered), "shop", "PEM"), Some(first));
    }
}

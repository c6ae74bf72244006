//! ServiceAccount: a pod runs as an account of its namespace and gets a token for it.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_machinery::status::Status;

use super::{Admission, Attributes, Operation};
use crate::registry::{Refusal, Registry};

/// Where the token is mounted.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The annotation of a pod that mirrors a static one.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// One hour and a bit, so that a client that renews at 80 % of an hour has slack. Source: `WarnOnlyBoundTokenExpirationPeriod`.
const EXPIRATION_SECONDS: u64 = 3607;

/// The plugin.
pub(super) struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, registry: &Registry, of: &Attributes<'_>, pod: &mut Value) -> Result<(), Refusal> {
        if of.operation != Operation::Create || !of.is("", "pods") {
            return Ok(());
        }
        let forbidden = |why: String| Box::new(Status::forbidden("", "pods", of.name, why));
        if pod["metadata"]["annotations"].get(MIRROR).is_some() {
            return refuse_mirror(pod).map_err(|why| forbidden(why.to_owned()));
        }
        if text(pod, "serviceAccountName").is_empty() {
            pod["spec"]["serviceAccountName"] = "default".into();
        }
        let name = text(pod, "serviceAccountName").to_owned();
        pod["spec"]["serviceAccount"] = name.clone().into();
        let account = registry.lookup(("", "v1", "serviceaccounts"), of.namespace, &name).await?;
        let Some(account) = account else {
            return Err(forbidden(format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                of.namespace
            )));
        };
        if mounts_token(&account, pod) {
            let volume = format!("kube-api-access-{}", registry.environment().suffix(5));
            mount_token(pod, &volume);
        }
        let own_secrets = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
        if !own_secrets && account["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty()) {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }
}

fn text<'a>(pod: &'a Value, field: &str) -> &'a str {
    pod["spec"][field].as_str().unwrap_or_default()
}

fn refuse_mirror(pod: &Value) -> Result<(), &'static str> {
    if !text(pod, "serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    let volumes = pod["spec"]["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    if volumes.iter().any(|volume| volume.get("secret").is_some()) {
        return Err("a mirror pod may not reference secrets");
    }
    let projects_token = |volume: &Value| {
        let sources = volume["projected"]["sources"].as_array();
        sources.is_some_and(|sources| sources.iter().any(|s| s.get("serviceAccountToken").is_some()))
    };
    if volumes.iter().any(projects_token) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

fn mounts_token(account: &Value, pod: &Value) -> bool {
    pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true)
}

fn mount_token(pod: &mut Value, volume: &str) {
    let mut used = false;
    for list in ["initContainers", "containers"] {
        // Not by index: that would make the list where there is none.
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let has_own = container["volumeMounts"]
                .as_array()
                .is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH));
            if !has_own {
                let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
                push(&mut container["volumeMounts"], mount);
                used = true;
            }
        }
    }
    if used {
        push(&mut pod["spec"]["volumes"], token_volume(volume));
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": EXPIRATION_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_without_an_own_mount_gets_the_token() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod, "v");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "v");
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        assert!(pod["spec"].get("initContainers").is_none());
        assert_eq!(
            pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["path"],
            "token"
        );
    }

    #[test]
    fn pod_and_account_can_opt_out_and_the_pod_decides() {
        let table = [
            (json!({}), json!({}), true),
            (json!({"automountServiceAccountToken": false}), json!({}), false),
            (
                json!({"automountServiceAccountToken": false}),
                json!({"automountServiceAccountToken": true}),
                true,
            ),
            (json!({}), json!({"automountServiceAccountToken": false}), false),
        ];
        for (account, spec, want) in table {
            assert_eq!(mounts_token(&account, &json!({"spec": spec})), want);
        }
    }
}

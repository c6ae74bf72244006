//! What a kubelet may do with volumes: read those of its pods, watch those whose data it keeps, and let the latter go.

use serde_json::Value;
use wherry_machinery::status::Status;

use super::attributes::ResourceTarget;
use crate::admission::{Attributes, Operation};
use crate::registry::Refusal;

/// The label that says which node keeps a volume's data.
const NODE_LABEL: &str = "wherry.dev/node";
/// The finalizer of volumes whose data a node keeps.
const FINALIZER: &str = "wherry.dev/local-path";

/// Whether the node may make the request. `volume` is the object that is named, if it is there; `is_of_pod` says whether a pod of
/// the node uses a claim, by namespace and name.
///
/// # Errors
/// Why not.
pub(super) fn decide(
    node: &str,
    verb: &str,
    target: &ResourceTarget<'_>,
    volume: Option<&Value>,
    is_of_pod: impl Fn(&str, &str) -> bool,
) -> Result<(), String> {
    let no_relationship = || Err(format!("no relationship found between node '{node}' and this object"));
    if !target.subresource.is_empty() {
        return Err("cannot read subresource".to_owned());
    }
    let is_keeper = volume.is_some_and(|volume| keeper(volume) == node);
    match verb {
        "get" => {
            let claim = volume.map(|volume| &volume["spec"]["claimRef"]);
            let is_used = claim.is_some_and(|claim| {
                let text = |field: &str| claim[field].as_str().unwrap_or_default();
                is_of_pod(text("namespace"), text("name"))
            });
            if is_keeper || is_used { Ok(()) } else { no_relationship() }
        }
        "list" | "watch" => {
            let wanted = format!("{NODE_LABEL}={node}");
            let selects = |selector: &str| selector.split(',').any(|term| term == wanted);
            if target.label_selector.is_some_and(selects) {
                Ok(())
            } else {
                Err(format!("can only list/watch volumes with {NODE_LABEL} label selector"))
            }
        }
        "patch" | "update" if is_keeper => Ok(()),
        _ => no_relationship(),
    }
}

fn keeper(volume: &Value) -> &str {
    volume["metadata"]["labels"][NODE_LABEL].as_str().unwrap_or_default()
}

/// Of a volume whose data it keeps, a node may only take its own finalizer away.
///
/// # Errors
/// It changes something else.
pub(super) fn check_change(of: &Attributes<'_>, new: &Value) -> Result<(), Refusal> {
    let is_change = of.operation == Operation::Update && of.is("", "persistentvolumes");
    let (Some(old), Some(node)) = (of.old.filter(|_| is_change), of.context.identity.node_name()) else {
        return Ok(());
    };
    if without_finalizer(new) == without_finalizer(old) {
        return Ok(());
    }
    let why = format!("node {node:?} may only remove the finalizer {FINALIZER}");
    Err(Status::forbidden("", "persistentvolumes", of.name, why).into())
}

fn without_finalizer(volume: &Value) -> Value {
    let mut volume = volume.clone();
    let Some(metadata) = volume.get_mut("metadata").and_then(Value::as_object_mut) else { return volume };
    for field in ["managedFields", "resourceVersion"] {
        metadata.remove(field);
    }
    let rest: Vec<Value> = metadata
        .remove("finalizers")
        .and_then(|finalizers| finalizers.as_array().cloned())
        .unwrap_or_default()
        .into_iter()
        .filter(|finalizer| finalizer != FINALIZER)
        .collect();
    metadata.insert("finalizers".to_owned(), rest.into());
    volume
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_sees_the_volumes_of_its_pods_and_those_it_keeps() {
        let kept = json!({"metadata": {"labels": {NODE_LABEL: "n1"}}});
        let used = json!({"metadata": {}, "spec": {"claimRef": {"namespace": "ns", "name": "c"}}});
        let plain = ResourceTarget { resource: "persistentvolumes", ..ResourceTarget::default() };
        let selecting = |selector| ResourceTarget { label_selector: Some(selector), ..plain };
        let table = [
            ("get", plain, Some(&kept), true),
            ("get", plain, Some(&used), true),
            ("get", plain, None, false),
            ("patch", plain, Some(&kept), true),
            ("patch", plain, Some(&used), false),
            ("delete", plain, Some(&kept), false),
            ("watch", plain, None, false),
            ("watch", selecting("wherry.dev/node=n1"), None, true),
            ("watch", selecting("wherry.dev/node=n2"), None, false),
            ("list", selecting("wherry.dev/node!=n1"), None, false),
        ];
        for (verb, target, volume, allowed) in table {
            let is_of_pod = |namespace: &str, name: &str| (namespace, name) == ("ns", "c");
            let decided = decide("n1", verb, &target, volume, is_of_pod);
            assert_eq!(decided.is_ok(), allowed, "{verb} {target:?} {volume:?}");
        }
    }

    #[test]
    fn a_node_only_takes_its_finalizer_away() {
        let old = json!({"metadata": {"finalizers": [FINALIZER, "x"]}, "spec": {"a": 1}});
        let mut new = json!({"metadata": {"finalizers": ["x"]}, "spec": {"a": 1}});
        assert_eq!(without_finalizer(&old), without_finalizer(&new));
        new["metadata"]["finalizers"] = json!([]);
        assert_ne!(without_finalizer(&old), without_finalizer(&new));
    }
}

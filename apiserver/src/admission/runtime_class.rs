//! RuntimeClass: a pod takes the overhead and the scheduling constraints of its class.

use async_trait::async_trait;
use serde_json::{Map, Value};
use wherry_machinery::status::Status;

use super::{Admission, Attributes, Operation};
use crate::registry::{Refusal, Registry};

const CLASSES: (&str, &str, &str) = ("node.k8s.io", "v1", "runtimeclasses");

/// The plugin.
pub(super) struct RuntimeClass;

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn admit(&self, registry: &Registry, of: &Attributes<'_>, pod: &mut Value) -> Result<(), Refusal> {
        if of.operation != Operation::Create || !of.is("", "pods") {
            return Ok(());
        }
        let class = class_of(registry, of, pod).await?;
        let Some(class) = class else { return Ok(()) };
        apply(pod, &class).map_err(|why| Box::new(Status::forbidden("", "pods", of.name, why)))
    }

    async fn validate(&self, registry: &Registry, of: &Attributes<'_>, pod: &Value) -> Result<(), Refusal> {
        if of.operation != Operation::Create || !of.is("", "pods") {
            return Ok(());
        }
        let class = class_of(registry, of, pod).await?;
        let fixed = class.as_ref().and_then(|class| class.pointer("/overhead/podFixed"));
        let own = pod["spec"]
            .get("overhead")
            .filter(|overhead| overhead.as_object().is_some_and(|o| !o.is_empty()));
        match (own, fixed) {
            (Some(_), None) => {
                let why =
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(Status::forbidden("", "pods", of.name, why).into())
            }
            _ => Ok(()),
        }
    }
}

async fn class_of(registry: &Registry, of: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Refusal> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    match registry.lookup(CLASSES, "", name).await? {
        Some(class) => Ok(Some(class)),
        None => {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            Err(Status::forbidden("", "pods", of.name, why).into())
        }
    }
}

fn apply(pod: &mut Value, class: &Value) -> Result<(), &'static str> {
    if let Some(fixed) = class.pointer("/overhead/podFixed") {
        let own = pod["spec"]
            .get("overhead")
            .filter(|overhead| overhead.as_object().is_some_and(|o| !o.is_empty()));
        if own.is_some_and(|own| own != fixed) {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        }
        pod["spec"]["overhead"] = fixed.clone();
    }
    if let Some(wanted) = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object) {
        let mut selector = pod["spec"]["nodeSelector"].as_object().cloned().unwrap_or_else(Map::new);
        for (key, value) in wanted {
            if selector.get(key).is_some_and(|own| own != value) {
                return Err("conflict: runtimeClass.scheduling.nodeSelector and pod.spec.nodeSelector");
            }
            selector.insert(key.clone(), value.clone());
        }
        pod["spec"]["nodeSelector"] = Value::Object(selector);
    }
    if let Some(wanted) = class.pointer("/scheduling/tolerations").and_then(Value::as_array) {
        let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        for toleration in wanted {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        pod["spec"]["tolerations"] = Value::Array(tolerations);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn overhead_and_scheduling_are_merged_into_the_pod() {
        let class = json!({"overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"rt": "x"},
            "tolerations": [{"key": "rt"}]}});
        let mut pod = json!({"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "rt"}]}});
        apply(&mut pod, &class).unwrap();
        assert_eq!(
            pod["spec"],
            json!({"nodeSelector": {"a": "b", "rt": "x"}, "tolerations": [{"key": "rt"}],
            "overhead": {"cpu": "10m"}})
        );
        let mut contrary = json!({"spec": {"nodeSelector": {"rt": "y"}}});
        assert!(apply(&mut contrary, &class).is_err());
    }
}

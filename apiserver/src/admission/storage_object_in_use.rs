//! StorageObjectInUseProtection: volumes and claims are not removed while somebody uses them.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};
use crate::registry::{Refusal, Registry};

/// The plugin.
pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn admit(
        &self,
        _registry: &Registry,
        of: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), Refusal> {
        if of.operation != Operation::Create {
            return Ok(());
        }
        if of.is("", "persistentvolumeclaims") {
            add_finalizer(object, "kubernetes.io/pvc-protection");
        } else if of.is("", "persistentvolumes") {
            add_finalizer(object, "kubernetes.io/pv-protection");
        } else if of.is("storage.k8s.io", "volumeattributesclasses") {
            add_finalizer(object, "kubernetes.io/vac-protection");
        }
        Ok(())
    }
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    match &mut object["metadata"]["finalizers"] {
        Value::Array(list) if list.iter().any(|given| given == finalizer) => {}
        Value::Array(list) => list.push(finalizer.into()),
        other => *other = json!([finalizer]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finalizer_is_added_once() {
        let mut object = json!({"metadata": {"finalizers": ["a"]}});
        add_finalizer(&mut object, "b");
        add_finalizer(&mut object, "b");
        assert_eq!(object["metadata"]["finalizers"], json!(["a", "b"]));
    }
}

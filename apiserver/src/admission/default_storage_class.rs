//! DefaultStorageClass: a claim that names no class gets the default one.

use async_trait::async_trait;
use serde_json::Value;

use super::{Admission, Attributes, Operation};
use crate::kinds::storage_class;
use crate::registry::{Refusal, Registry};

/// The plugin.
pub(super) struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn admit(
        &self,
        registry: &Registry,
        of: &Attributes<'_>,
        claim: &mut Value,
    ) -> Result<(), Refusal> {
        if of.operation != Operation::Create || !of.is("", "persistentvolumeclaims") || has_class(claim) {
            return Ok(());
        }
        let Some(kind) = registry.kind("storage.k8s.io", "v1", "storageclasses") else { return Ok(()) };
        registry.refresh().await?;
        let classes = kind.cacher.snapshot(None, 0).entries;
        if let Some(class) = storage_class::default_of(classes.iter().map(|entry| entry.value())) {
            claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}

/// An empty name means "no class", which is a choice.
fn has_class(claim: &Value) -> bool {
    let annotation = &claim["metadata"]["annotations"][storage_class::BETA_CLASS_ANNOTATION];
    annotation.is_string() || claim["spec"]["storageClassName"].is_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_class_is_a_choice() {
        assert!(!has_class(&json!({"spec": {}})));
        assert!(has_class(&json!({"spec": {"storageClassName": ""}})));
        assert!(has_class(
            &json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "a"}}, "spec": {}})
        ));
    }
}

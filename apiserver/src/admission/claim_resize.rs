//! PersistentVolumeClaimResize: a claim grows only if its class says that its volumes can.

use async_trait::async_trait;
use serde_json::Value;
use wherry_machinery::quantity::Quantity;
use wherry_machinery::status::Status;

use super::{Admission, Attributes, Operation};
use crate::kinds::{persistent_volume, persistent_volume_claim};
use crate::registry::{Refusal, Registry};

/// The plugin.
pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    async fn validate(&self, registry: &Registry, of: &Attributes<'_>, claim: &Value) -> Result<(), Refusal> {
        let (Operation::Update, Some(old)) = (of.operation, of.old) else { return Ok(()) };
        if !of.is("", "persistentvolumeclaims") || !grows(claim, old) {
            return Ok(());
        }
        let forbidden =
            |why: &str| Box::new(Status::forbidden("", "persistentvolumeclaims", of.name, why.to_owned()));
        if old["status"]["phase"] != "Bound" {
            return Err(forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = persistent_volume::class_of(claim);
        let allowed = if class.is_empty() || class != persistent_volume::class_of(old) {
            false
        } else {
            let class = registry.lookup(("storage.k8s.io", "v1", "storageclasses"), "", class).await?;
            class.is_some_and(|class| class["allowVolumeExpansion"] == true)
        };
        if allowed {
            Ok(())
        } else {
            Err(forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            ))
        }
    }
}

fn grows(claim: &Value, old: &Value) -> bool {
    let size = |claim: &Value| persistent_volume_claim::requested(claim).parse::<Quantity>().ok();
    match (size(claim), size(old)) {
        (Some(new), Some(old)) => new > old,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_more_room_is_growth() {
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert!(grows(&claim("2Gi"), &claim("1Gi")));
        assert!(!grows(&claim("1024Mi"), &claim("1Gi")));
        assert!(!grows(&claim("1Mi"), &claim("1Gi")));
    }
}

//! CSIStorageCapacity: how much room a driver has in a part of the cluster.

use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use crate::kinds::fields::{NEGATIVE, dns_subdomain, immutable, label_selector};
use crate::kinds::json::{is_absent, text, typed};
use crate::kinds::pod::resources;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `csistoragecapacities`.
pub(crate) struct CsiStorageCapacityStrategy;

impl Strategy for CsiStorageCapacityStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "storage.k8s.io",
            version: "v1",
            name: "csistoragecapacities",
            kind: "CSIStorageCapacity",
            scope: Scope::Namespaced,
        }
    }

    fn default(&self, object: &mut Value) {
        for field in ["capacity", "maximumVolumeSize"] {
            resources::canonicalize_field(object, field);
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let topology_path = Path::new("nodeTopology");
        let mut errors = if is_absent(object.get("nodeTopology")) {
            ErrorList::new()
        } else {
            match typed(object, &topology_path) {
                Ok(selector) => label_selector(Some(&selector), &topology_path),
                Err(errors) => return errors,
            }
        };
        errors.extend(dns_subdomain(text(object, "/storageClassName"), &Path::new("storageClassName")));
        for field in ["capacity", "maximumVolumeSize"] {
            let amount = text(object, &format!("/{field}"));
            if resources::parsed(amount).is_negative() {
                errors.push(Error::invalid(&Path::new(field), amount, NEGATIVE));
            }
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        for field in ["nodeTopology", "storageClassName"] {
            errors.extend(immutable(object.get(field), old.get(field), &Path::new(field)));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn room_is_not_negative_and_its_place_is_fixed() {
        let bad = json!({"storageClassName": "", "capacity": "-1"});
        let errors = messages(&CsiStorageCapacityStrategy.validate(&facts(), &bad));
        assert!(errors[0].starts_with("storageClassName: Invalid value: \"\""), "{errors:?}");
        assert_eq!(errors[1], r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#);
        let old = json!({"storageClassName": "a"});
        let new = json!({"storageClassName": "b"});
        assert_eq!(CsiStorageCapacityStrategy.validate_update(&facts(), Part::Main, &new, &old).len(), 1);
    }
}

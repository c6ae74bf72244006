//! CSINode: the drivers on a node.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::{CSINodeDriver, CSINodeSpec};
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use crate::kinds::fields::{IMMUTABLE, non_negative};
use crate::kinds::json::{count, default_value, list, map_at, remove, typed};
use crate::kinds::pod::volumes::csi_driver;
use crate::kinds::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// Bytes of a node's id for its driver. Source: `csiNodeIDMaxLength`.
const MAX_NODE_ID_BYTES: usize = 192;

/// `csinodes`.
pub(crate) struct CsiNodeStrategy;

impl Strategy for CsiNodeStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "storage.k8s.io",
            version: "v1",
            name: "csinodes",
            kind: "CSINode",
            scope: Scope::Cluster,
        }
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = map_at(object, "spec") {
            default_value(spec, "drivers", json!(null));
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec = object.get("spec").filter(|spec| !spec["drivers"].is_null());
        let Some(_) = spec else { return ErrorList::new() };
        let spec: CSINodeSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut seen = BTreeSet::new();
        let path = path.child("drivers");
        let drivers = spec.drivers.iter().enumerate();
        drivers.flat_map(|(i, entry)| driver(entry, &mut seen, &path.index(i))).collect()
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        // How many volumes a driver can attach may change; what else it said may not.
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            remove(&mut driver, "allocatable");
            driver
        };
        let path = Path::new("spec").child("drivers");
        for old_driver in list(old, "/spec/drivers") {
            for (i, new_driver) in list(object, "/spec/drivers").iter().enumerate() {
                if new_driver["name"] == old_driver["name"] && fixed(new_driver) != fixed(old_driver) {
                    errors.push(Error::invalid(&path.index(i), new_driver.clone(), IMMUTABLE));
                }
            }
        }
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(vec![
            table::name(object),
            count(object, "/spec/drivers").into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

fn driver<'a>(driver: &'a CSINodeDriver, seen: &mut BTreeSet<&'a str>, path: &Path) -> ErrorList {
    let mut errors = csi_driver(&driver.name, &path.child("name"));
    let id_path = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.push(Error::required(&id_path, ""));
    } else if driver.node_id.len() > MAX_NODE_ID_BYTES {
        let detail = format!("must be {MAX_NODE_ID_BYTES} characters or less");
        errors.push(Error::invalid(&id_path, driver.node_id.as_str(), &detail));
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count) {
        errors.extend(non_negative(count.into(), &path.child("allocatable").child("count")));
    }
    if !seen.insert(&driver.name) {
        errors.push(Error::duplicate(&path.child("name"), driver.name.as_str()));
    }
    let keys = driver.topology_keys.as_deref().unwrap_or_default();
    let keys_path = path.child("topologyKeys");
    let mut seen_keys = BTreeSet::new();
    for key in keys {
        if key.is_empty() {
            errors.push(Error::required(&keys_path, ""));
        }
        if !seen_keys.insert(key) {
            errors.push(Error::duplicate(&keys_path, key.as_str()));
        }
        for problem in names::qualified_name(key) {
            errors.push(Error::invalid(&keys_path, json!(keys), &problem));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn drivers_are_unique_and_keep_what_they_said() {
        let node = json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}, {"name": "d", "nodeID": "", "topologyKeys": ["a", "a"]}]}});
        assert_eq!(
            messages(&CsiNodeStrategy.validate(&facts(), &node)),
            [
                "spec.drivers[1].nodeID: Required value",
                r#"spec.drivers[1].name: Duplicate value: "d""#,
                r#"spec.drivers[1].topologyKeys: Duplicate value: "a""#,
            ]
        );
        let old = json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}});
        let mut new =
            json!({"spec": {"drivers": [{"name": "d", "nodeID": "n", "allocatable": {"count": 3}}]}});
        assert!(CsiNodeStrategy.validate_update(&facts(), Part::Main, &new, &old).is_empty());
        new["spec"]["drivers"][0]["nodeID"] = "m".into();
        assert_eq!(CsiNodeStrategy.validate_update(&facts(), Part::Main, &new, &old).len(), 1);
    }
}

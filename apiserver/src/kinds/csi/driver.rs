//! CSIDriver.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::{CSIDriverSpec, TokenRequest};
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

use crate::kinds::fields::immutable;
use crate::kinds::json::{default_value, flag, is_absent, list, map_at, text, typed};
use crate::kinds::pod::volumes::csi_driver;
use crate::kinds::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

const FS_GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLE_MODES: &[&str] = &["Ephemeral", "Persistent"];
/// Fields whose changes count as a new generation.
const MUTABLE: &[&str] = &[
    "fsGroupPolicy",
    "nodeAllocatableUpdatePeriodSeconds",
    "podInfoOnMount",
    "requiresRepublish",
    "seLinuxMount",
    "serviceAccountTokenInSecrets",
    "storageCapacity",
    "tokenRequests",
];

/// `csidrivers`.
pub(crate) struct CsiDriverStrategy;

impl Strategy for CsiDriverStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "storage.k8s.io",
            version: "v1",
            name: "csidrivers",
            kind: "CSIDriver",
            scope: Scope::Cluster,
        }
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_at(object, "spec") else { return };
        default_value(spec, "attachRequired", true);
        default_value(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            default_value(spec, field, false);
        }
        if list(spec, "/volumeLifecycleModes").is_empty() {
            crate::kinds::json::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, _part: Part, object: &mut Value, old: &Value) {
        let differs = MUTABLE.iter().any(|field| object["spec"].get(*field) != old["spec"].get(*field));
        if differs {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            object["metadata"]["generation"] = (generation + 1).into();
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: CSIDriverSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = csi_driver(text(object, "/metadata/name"), &Path::new("name"));
        let policy = spec.fs_group_policy.as_deref().unwrap_or_default();
        if !FS_GROUP_POLICIES.contains(&policy) {
            errors.push(Error::not_supported(&path.child("fsGroupPolicy"), policy, FS_GROUP_POLICIES));
        }
        errors.extend(token_requests(
            spec.token_requests.as_deref().unwrap_or_default(),
            &path.child("tokenRequests"),
        ));
        for mode in spec.volume_lifecycle_modes.iter().flatten() {
            if !LIFECYCLE_MODES.contains(&mode.as_str()) {
                let path = path.child("volumeLifecycleModes");
                errors.push(Error::not_supported(&path, mode.as_str(), LIFECYCLE_MODES));
            }
        }
        if let Some(period) = object["spec"]["nodeAllocatableUpdatePeriodSeconds"].as_i64()
            && period < 10
        {
            let path = path.child("nodeAllocatableUpdatePeriodSeconds");
            errors.push(Error::invalid(&path, period, "must be greater than or equal to 10 seconds"));
        }
        let in_secrets = !is_absent(object["spec"].get("serviceAccountTokenInSecrets"));
        if in_secrets && spec.token_requests.as_ref().is_none_or(Vec::is_empty) {
            let path = path.child("serviceAccountTokenInSecrets");
            errors.push(Error::invalid(
                &path,
                object["spec"]["serviceAccountTokenInSecrets"].clone(),
                "serviceAccountTokenInSecrets should only be set when tokenRequests is configured",
            ));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        let field = |object: &Value, field: &str| object["spec"].get(field).cloned();
        for (name, shown) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            let path = Path::new("spec").child(shown);
            errors.extend(immutable(field(object, name).as_ref(), field(old, name).as_ref(), &path));
        }
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let modes: Vec<&str> =
            list(object, "/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
        let modes = if modes.is_empty() { table::NONE.to_owned() } else { modes.join(",") };
        let requests = list(object, "/spec/tokenRequests");
        let audiences = requests.iter().map(|request| text(request, "/audience")).collect::<Vec<_>>();
        let audiences = if requests.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
        Some(vec![
            table::name(object),
            flag(object, "/spec/attachRequired").into(),
            flag(object, "/spec/podInfoOnMount").into(),
            flag(object, "/spec/storageCapacity").into(),
            audiences.into(),
            flag(object, "/spec/requiresRepublish").into(),
            modes.into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

fn token_requests(requests: &[TokenRequest], path: &Path) -> ErrorList {
    /// Ten minutes; the same bound as for tokens in projected volumes.
    const MIN_SECONDS: i64 = 600;
    let mut errors = ErrorList::new();
    let mut audiences = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = path.index(i);
        if !audiences.insert(request.audience.as_str()) {
            errors.push(Error::duplicate(&path.child("audience"), request.audience.as_str()));
            continue;
        }
        let Some(seconds) = request.expiration_seconds else { continue };
        let path = path.child("expirationSeconds");
        if seconds < MIN_SECONDS {
            errors.push(Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            errors.push(Error::invalid(
                &path,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn a_driver_has_defaults_and_fixed_fields() {
        let mut driver = json!({"metadata": {"name": "d.example"}, "spec": {}});
        CsiDriverStrategy.default(&mut driver);
        assert_eq!(
            driver["spec"],
            json!({"attachRequired": true, "fsGroupPolicy": "ReadWriteOnceWithFSType", "podInfoOnMount": false,
                "storageCapacity": false, "requiresRepublish": false, "seLinuxMount": false, "volumeLifecycleModes": ["Persistent"]})
        );
        assert!(CsiDriverStrategy.validate(&facts(), &driver).is_empty());
        let mut changed = driver.clone();
        changed["spec"]["attachRequired"] = false.into();
        changed["spec"]["tokenRequests"] =
            json!([{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]);
        CsiDriverStrategy.prepare_for_update(&facts(), Part::Main, &mut changed, &driver);
        assert_eq!(changed["metadata"]["generation"], 1);
        assert_eq!(
            messages(&CsiDriverStrategy.validate_update(&facts(), Part::Main, &changed, &driver)),
            [
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                r#"spec.tokenRequests[1].audience: Duplicate value: "a""#,
                "spec.attachedRequired: Invalid value: false: field is immutable",
            ]
        );
    }
}

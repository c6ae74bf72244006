//! VolumeAttachment.

use k8s_openapi::api::storage::v1::VolumeAttachmentSpec;
use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::fields::{IMMUTABLE, invalid_each};
use super::json::{default_value, flag, map_at, text, typed, within};
use super::persistent_volume::{Place, default_spec, validate_spec};
use super::pod::volumes::csi_driver;
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `volumeattachments`.
pub(crate) struct VolumeAttachmentStrategy;

impl Strategy for VolumeAttachmentStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "storage.k8s.io",
            version: "v1",
            name: "volumeattachments",
            kind: "VolumeAttachment",
            scope: Scope::Cluster,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = map_at(object, "status") {
            default_value(status, "attached", false);
        }
        within(object, "spec", |spec| {
            within(spec, "source", |source| within(source, "inlineVolumeSpec", default_spec));
        });
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        super::json::set(object, "status", serde_json::json!({"attached": false}));
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: VolumeAttachmentSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = csi_driver(&spec.attacher, &path.child("attacher"));
        let source_path = path.child("source");
        let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (&spec.source.inline_volume_spec, spec.source.persistent_volume_name.as_deref()) {
            (None, None) => errors.push(Error::required(&source_path, exactly_one)),
            (Some(_), Some(_)) => errors.push(Error::forbidden(&source_path, exactly_one)),
            (None, Some("")) => {
                let detail = "must specify non empty persistentVolumeName";
                errors.push(Error::required(&source_path.child("persistentVolumeName"), detail));
            }
            (None, Some(name)) => {
                let path = source_path.child("persistentVolumeName");
                errors.extend(invalid_each(&path, name, names::dns1123_subdomain(name)));
            }
            (Some(inline), None) => {
                let path = source_path.child("inlineVolumeSpec");
                errors.extend(validate_spec(inline, "", Place::Inline, &path));
            }
        }
        let node = &spec.node_name;
        errors.extend(invalid_each(&path.child("nodeName"), node, names::dns1123_subdomain(node)));
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            return ErrorList::new();
        }
        let mut errors = self.validate(facts, object);
        if object.get("spec") != old.get("spec") {
            let spec = object.get("spec").cloned().unwrap_or_default();
            errors.push(Error::invalid(&Path::new("spec"), spec, IMMUTABLE));
        }
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(vec![
            table::name(object),
            text(object, "/spec/attacher").into(),
            text(object, "/spec/source/persistentVolumeName").into(),
            text(object, "/spec/nodeName").into(),
            flag(object, "/status/attached").into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn one_volume_is_attached_to_one_node_for_good() {
        let good =
            json!({"spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}});
        assert!(VolumeAttachmentStrategy.validate(&facts(), &good).is_empty());
        let bad = json!({"spec": {"attacher": "", "nodeName": "n", "source": {}}});
        assert_eq!(
            messages(&VolumeAttachmentStrategy.validate(&facts(), &bad)),
            [
                "spec.attacher: Required value",
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ]
        );
        let mut moved = good.clone();
        moved["spec"]["nodeName"] = "other".into();
        let errors = VolumeAttachmentStrategy.validate_update(&facts(), Part::Main, &moved, &good);
        assert!(messages(&errors)[0].starts_with("spec: Invalid value: {"), "{errors:?}");
    }
}

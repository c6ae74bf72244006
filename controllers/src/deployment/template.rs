//! Pod templates: which replica set is of which, and what it is called.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The label that tells the pods of one template from those of another.
pub(super) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// What hashes are written with: no vowels, so that no words appear.
const SAFE_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name for `template` that is the same in every process and release; `collision_count` makes another one when two
/// templates share a name.
pub(super) fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut encoded = String::new();
    encode_sorted(&serde_json::to_value(template).unwrap_or_default(), &mut encoded);
    let mut hash = fnv1a(FNV_OFFSET, encoded.as_bytes());
    if let Some(count) = collision_count {
        hash = fnv1a(hash, &i64::from(count).to_le_bytes());
    }
    hash.to_string()
        .bytes()
        .map(|byte| char::from(SAFE_ALPHABET[usize::from(byte) % SAFE_ALPHABET.len()]))
        .collect()
}

/// FNV-1a's start value, 32 bits.
const FNV_OFFSET: u32 = 0x811c_9dc5;
/// FNV-1a's factor, 32 bits.
const FNV_PRIME: u32 = 0x0100_0193;

fn fnv1a(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// JSON with sorted keys, whatever order the map type keeps.
fn encode_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            for (key, value) in fields {
                out.push_str(key);
                out.push(':');
                encode_sorted(value, out);
                out.push(';');
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push('-');
                encode_sorted(item, out);
                out.push(';');
            }
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Whether `replica_set` is of the deployment's present template.
pub(super) fn is_of_template(deployment: &Deployment, replica_set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.as_ref().map(|spec| without_hash(&spec.template));
    let has = replica_set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(without_hash);
    wanted.is_some() && wanted == has
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        if let Some(labels) = &mut metadata.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
        // The API server may write an explicit null here.
        metadata.creation_timestamp = None;
    }
    template
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(image: &str, hash: Option<&str>) -> PodTemplateSpec {
        let mut labels = json!({ "app": "web" });
        if let Some(hash) = hash {
            labels[POD_TEMPLATE_HASH] = hash.into();
        }
        serde_json::from_value(json!({
            "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": image }] },
        }))
        .expect("a template")
    }

    #[test]
    fn hashes_are_stable_and_safe_and_differ_by_template_and_collision_count() {
        let one = template_hash(&template("a", None), None);
        assert_eq!(one, template_hash(&template("a", None), None));
        // This name is in users' clusters: it must never change.
        assert_eq!(one, "78f76875c8");
        assert!(one.bytes().all(|byte| SAFE_ALPHABET.contains(&byte)));
        for other in [
            template_hash(&template("b", None), None),
            template_hash(&template("a", None), Some(0)),
            template_hash(&template("a", None), Some(1)),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_replica_set_is_of_a_template_whatever_its_hash_label() {
        let deployment: Deployment =
            serde_json::from_value(json!({ "spec": { "selector": {}, "template": template("a", None) } }))
                .expect("valid");
        for (image, expected) in [("a", true), ("b", false)] {
            let replica_set = serde_json::from_value(
                json!({ "spec": { "selector": {}, "template": template(image, Some("123")) } }),
            )
            .expect("valid");
            assert_eq!(is_of_template(&deployment, &replica_set), expected);
        }
    }
}

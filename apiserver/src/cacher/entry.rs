//! One object as it is served: JSON bytes encoded once, and what selectors need, read from them at most once.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use wherry_storage::Revision;

use crate::registry::strategy::{Resource, Strategy};

/// An object at a revision. Its bytes are shared by GET, LIST and every watcher.
#[derive(Debug)]
pub struct Entry {
    key: Arc<str>,
    revision: Revision,
    json: Bytes,
    /// Where the fields after `kind` and `apiVersion` begin.
    body_at: usize,
    /// Where the digits of the resource version stand.
    revision_at: std::ops::Range<usize>,
    labels: OnceLock<BTreeMap<String, String>>,
    fields: OnceLock<BTreeMap<&'static str, String>>,
}

/// Bytes that are not the JSON of an object.
#[derive(Debug, thiserror::Error)]
#[error("the stored object is not JSON")]
pub struct NotAnObject(#[from] serde_json::Error);

/// How objects of one kind begin, so that a resource version can be put into stored bytes without parsing them.
#[derive(Debug, Clone)]
pub struct TypePrefix {
    /// `{"kind":"Pod","apiVersion":"v1",`
    meta: String,
    /// The above and `"metadata":{`
    open: String,
}

impl TypePrefix {
    /// The prefix of a resource's objects.
    pub fn new(resource: &Resource) -> Self {
        let meta = format!(r#"{{"kind":"{}","apiVersion":"{}","#, resource.kind, resource.api_version());
        let open = format!(r#"{meta}"metadata":{{"#);
        Self { meta, open }
    }

    /// The bytes to store: `kind`, `apiVersion` and `metadata` first, without resource version (the store's revision is that).
    pub fn stored(&self, object: &Value) -> Bytes {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(self.open.as_bytes());
        if let Some(metadata) = object.get("metadata").and_then(Value::as_object) {
            write_fields(&mut out, metadata.iter().filter(|(k, _)| *k != "resourceVersion"));
        }
        out.push(b'}');
        if let Some(fields) = object.as_object() {
            let rest =
                fields.iter().filter(|(k, _)| !matches!(k.as_str(), "kind" | "apiVersion" | "metadata"));
            for (key, value) in rest {
                out.push(b',');
                write_fields(&mut out, std::iter::once((key, value)));
            }
        }
        out.push(b'}');
        Bytes::from(out)
    }
}

fn write_fields<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a String, &'a Value)>) {
    for (index, (key, value)) in fields.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // Writing to memory cannot fail, and the keys of a `Value` are text.
        let _ = serde_json::to_writer(&mut *out, key);
        out.push(b':');
        let _ = serde_json::to_writer(&mut *out, value);
    }
}

impl Entry {
    /// The entry of stored bytes.
    ///
    /// # Errors
    /// When the bytes are not the JSON of an object.
    pub fn new(
        prefix: &TypePrefix,
        key: Arc<str>,
        stored: &Bytes,
        revision: Revision,
    ) -> Result<Self, NotAnObject> {
        let reencoded;
        let canonical = if stored.starts_with(prefix.open.as_bytes()) {
            stored
        } else {
            reencoded = prefix.stored(&serde_json::from_slice(stored)?);
            &reencoded
        };
        let digits = revision.to_string();
        let at = prefix.open.len();
        let mut json = Vec::with_capacity(canonical.len() + digits.len() + 22);
        json.extend_from_slice(&canonical[..at]);
        json.extend_from_slice(b"\"resourceVersion\":\"");
        let start = json.len();
        json.extend_from_slice(digits.as_bytes());
        let end = json.len();
        json.push(b'"');
        if canonical.get(at) != Some(&b'}') {
            json.push(b',');
        }
        json.extend_from_slice(&canonical[at..]);
        Ok(Self {
            key,
            revision,
            json: Bytes::from(json),
            body_at: prefix.meta.len(),
            revision_at: start..end,
            labels: OnceLock::new(),
            fields: OnceLock::new(),
        })
    }

    /// The same object under another revision: what a DELETED event shows.
    #[must_use]
    pub fn at_revision(&self, revision: Revision) -> Self {
        let digits = revision.to_string();
        let mut json = Vec::with_capacity(self.json.len() + 4);
        json.extend_from_slice(&self.json[..self.revision_at.start]);
        json.extend_from_slice(digits.as_bytes());
        let end = json.len();
        json.extend_from_slice(&self.json[self.revision_at.end..]);
        Self {
            key: Arc::clone(&self.key),
            revision,
            json: Bytes::from(json),
            body_at: self.body_at,
            revision_at: self.revision_at.start..end,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
        }
    }

    /// `namespace/name`, or the name of a cluster-scoped object.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The namespace; empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// The resource version.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The whole object.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The object after its opening brace, `kind` and `apiVersion`: what follows `{` in a list.
    pub fn body(&self) -> Bytes {
        self.json.slice(self.body_at..)
    }

    /// The object as a tree. Parsed at every call: the cache keeps bytes, not trees.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            labels: Option<BTreeMap<String, String>>,
        }
        self.labels.get_or_init(|| {
            serde_json::from_slice::<Head>(&self.json)
                .ok()
                .and_then(|head| head.metadata.labels)
                .unwrap_or_default()
        })
    }

    /// The fields that field selectors may name, beside name and namespace.
    pub fn fields(&self, strategy: &dyn Strategy) -> &BTreeMap<&'static str, String> {
        self.fields.get_or_init(|| {
            if strategy.selectable_field_names().is_empty() {
                BTreeMap::new()
            } else {
                strategy.selectable_fields(&self.value())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::strategy::Scope;

    const RESOURCE: Resource = Resource {
        group: "",
        version: "v1",
        name: "configmaps",
        kind: "ConfigMap",
        scope: Scope::Namespaced,
    };

    #[test]
    fn the_resource_version_is_put_into_stored_bytes_whatever_their_order() {
        let prefix = TypePrefix::new(&RESOURCE);
        let object = json!({"data": {"a": "1"}, "metadata": {"name": "x", "labels": {"l": "1"}, "resourceVersion": "3"},
            "apiVersion": "v1", "kind": "ConfigMap"});
        let stored = prefix.stored(&object);
        assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
        let foreign = Bytes::from(object.to_string());
        for bytes in [stored, foreign] {
            let entry = Entry::new(&prefix, "ns/x".into(), &bytes, 7).unwrap();
            assert_eq!(entry.value()["metadata"]["resourceVersion"], "7");
            assert_eq!(entry.value()["data"]["a"], "1");
            assert_eq!(entry.labels()["l"], "1");
            let later = entry.at_revision(1234);
            assert_eq!(later.value()["metadata"]["resourceVersion"], "1234");
            assert_eq!(later.at_revision(9).value()["metadata"]["name"], "x");
            assert!(later.body().starts_with(b"\"metadata\":{"));
            assert_eq!((entry.namespace(), entry.name()), ("ns", "x"));
        }
    }
}

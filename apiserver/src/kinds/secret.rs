//! Secret.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::config_map::{MAX_DATA_BYTES, decoded_length, immutable_data};
use super::json::{count, default_zero, map_at, set, text};
use super::{fields, table};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// The annotation that names the ServiceAccount of a token Secret.
const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// `secrets`.
pub(crate) struct SecretStrategy;

impl Strategy for SecretStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "secrets", kind: "Secret", scope: Scope::Namespaced }
    }

    fn default(&self, object: &mut Value) {
        default_zero(object, "type", "Opaque");
        take_over_string_data(object);
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, _part: Part, object: &mut Value, old: &Value) {
        // Kept for clients that leave the type out of an update.
        if text(object, "/type").is_empty() {
            set(object, "type", text(old, "/type"));
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let data_path = Path::new("data");
        let nothing = Map::new();
        let data = object.get("data").and_then(Value::as_object).unwrap_or(&nothing);
        let mut errors = ErrorList::new();
        for key in data.keys() {
            errors.extend(fields::invalid_each(&data_path.key(key), key, names::config_map_key(key)));
        }
        if data.values().map(decoded_length).sum::<usize>() > MAX_DATA_BYTES {
            errors.push(Error::too_long(&data_path, MAX_DATA_BYTES));
        }
        let required = |key: &str| Error::required(&data_path.key(key), "");
        match text(object, "/type") {
            "kubernetes.io/service-account-token" => {
                let annotations = object.pointer("/metadata/annotations");
                if annotations
                    .and_then(|a| a.get(SERVICE_ACCOUNT_NAME))
                    .and_then(Value::as_str)
                    .is_none_or(str::is_empty)
                {
                    let path = Path::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME);
                    errors.push(Error::required(&path, ""));
                }
            }
            "kubernetes.io/dockercfg" => errors.extend(json_map(data, ".dockercfg")),
            "kubernetes.io/dockerconfigjson" => errors.extend(json_map(data, ".dockerconfigjson")),
            "kubernetes.io/basic-auth"
                if !data.contains_key("username") && !data.contains_key("password") =>
            {
                errors.extend([required("username"), required("password")]);
            }
            "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").map_or(0, decoded_length) == 0 => {
                errors.push(required("ssh-privatekey"));
            }
            "kubernetes.io/tls" => {
                errors.extend(
                    ["tls.crt", "tls.key"].into_iter().filter(|key| !data.contains_key(*key)).map(required),
                );
            }
            _ => {}
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = fields::immutable(object.get("type"), old.get("type"), &Path::new("type"));
        errors.extend(immutable_data(object, old, &["data"]));
        errors.extend(self.validate(facts, object));
        errors
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("type", text(object, "/type").to_owned())])
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let data = object.get("data").and_then(Value::as_object);
        let empty = |key: &str| data.and_then(|d| d.get(key)).is_some_and(|v| v.as_str() == Some(""));
        match text(object, "/type") {
            "kubernetes.io/tls" => ["tls.crt", "tls.key"]
                .into_iter()
                .filter(|key| empty(key))
                .map(|key| format!("data.{key}: empty value is not a valid PEM block"))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let age = table::age(object, now_unix_seconds);
        Some(vec![table::name(object), text(object, "/type").into(), count(object, "/data").into(), age])
    }
}

/// `stringData` is for writing only: it goes into `data`.
fn take_over_string_data(object: &mut Value) {
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else {
        return;
    };
    if plain.is_empty() {
        return;
    }
    if let Some(data) = map_at(object, "data") {
        for (key, value) in plain {
            set(data, &key, STANDARD.encode(value.as_str().unwrap_or_default()));
        }
    }
}

/// A key that must be there and hold a JSON map.
fn json_map(data: &Map<String, Value>, key: &str) -> ErrorList {
    let path = Path::new("data").key(key);
    let Some(value) = data.get(key) else {
        return vec![Error::required(&path, "")];
    };
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    let problem = match serde_json::from_slice::<Map<String, Value>>(&bytes) {
        Ok(_) => return ErrorList::new(),
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(error) => error.to_string(),
    };
    vec![Error::invalid(&path, "<secret contents redacted>", &problem)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn string_data_overrides_data_and_the_type_is_opaque() {
        let mut secret = json!({"data": {"a": "b2xk", "b": "a2VlcA=="}, "stringData": {"a": "new"}});
        SecretStrategy.default(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "bmV3", "b": "a2VlcA=="}, "type": "Opaque"}));
    }

    #[test]
    fn each_type_has_its_required_keys() {
        let table = [
            (json!({"type": "Opaque"}), vec![]),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson"}),
                vec!["data[.dockerconfigjson]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                vec!["data[username]: Required value", "data[password]: Required value"],
            ),
            (json!({"type": "kubernetes.io/ssh-auth"}), vec!["data[ssh-privatekey]: Required value"]),
            (
                json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
                vec!["data[tls.key]: Required value"],
            ),
        ];
        for (secret, expected) in table {
            assert_eq!(messages(&SecretStrategy.validate(&facts(), &secret)), expected);
        }
    }

    #[test]
    fn the_type_is_fixed() {
        let old = json!({"type": "Opaque"});
        let new = json!({"type": "example.org/x"});
        let errors = SecretStrategy.validate_update(&facts(), Part::Main, &new, &old);
        assert_eq!(messages(&errors), [r#"type: Invalid value: "example.org/x": field is immutable"#]);
    }
}

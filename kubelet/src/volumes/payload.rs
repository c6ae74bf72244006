//! The files of ConfigMap, Secret, downward API and projected volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume,
};

use super::atomic_writer::{FileContent, Payload, is_valid_path};
use crate::pod::field_ref::{FieldError, PodFacts, field_value, resource_value};
use crate::pod::sources::Sources;

/// Default mode of files. Source: Kubernetes.
const DEFAULT_MODE: i32 = 0o644;

/// Why a volume's files cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The ConfigMap does not exist.
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    /// The Secret does not exist.
    #[error("secret {0:?} not found")]
    NoSecret(String),
    /// The ConfigMap has no such key.
    #[error("configmap references non-existent config key: {0}")]
    NoConfigMapKey(String),
    /// The Secret has no such key.
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    /// A path that leads out of the volume.
    #[error("invalid path {0:?}")]
    InvalidPath(String),
    /// A field or resource reference.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The token could not be had.
    #[error("failed to fetch token: {0}")]
    Token(String),
    /// A source that this node does not have.
    #[error("unsupported projected volume source")]
    UnsupportedSource,
}

/// A token that a volume needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    /// Audience; empty for the API server's own.
    pub audience: String,
    /// Lifetime in seconds.
    pub expiration_seconds: i64,
}

impl TokenKey {
    /// Of a projection.
    pub fn of(projection: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// Tokens, or why there is none.
pub type Tokens = BTreeMap<TokenKey, Result<String, String>>;

/// The tokens that a pod's volumes need.
pub fn needed_tokens(pod: &Pod) -> Vec<TokenKey> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes
        .iter()
        .filter_map(|v| v.projected.as_ref()?.sources.as_deref())
        .flatten()
        .filter_map(|source| source.service_account_token.as_ref())
        .map(TokenKey::of)
        .collect()
}

/// Everything that files are made from.
#[derive(Debug, Clone, Copy)]
pub struct PayloadInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// ConfigMaps and Secrets.
    pub sources: &'a Sources,
    /// Addresses and allocatable resources.
    pub facts: &'a PodFacts,
    /// Service account tokens.
    pub tokens: &'a Tokens,
}

/// The files of a volume; `None` when the volume is not made of files.
pub fn volume_payload(input: PayloadInput<'_>, volume: &Volume) -> Result<Option<Payload>, PayloadError> {
    let mut payload = Payload::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        add_config_map(&mut payload, input, &source.name, source.items.as_deref(), mode, optional)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        add_secret(&mut payload, input, name, source.items.as_deref(), mode, source.optional == Some(true))?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        add_downward(&mut payload, input, source.items.as_deref(), mode)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let optional = source.optional == Some(true);
                add_config_map(&mut payload, input, &source.name, source.items.as_deref(), mode, optional)?;
            } else if let Some(source) = &source.secret {
                let optional = source.optional == Some(true);
                add_secret(&mut payload, input, &source.name, source.items.as_deref(), mode, optional)?;
            } else if let Some(source) = &source.downward_api {
                add_downward(&mut payload, input, source.items.as_deref(), mode)?;
            } else if let Some(source) = &source.service_account_token {
                let key = TokenKey::of(source);
                let token = match input.tokens.get(&key) {
                    Some(Ok(token)) => token.clone().into_bytes(),
                    Some(Err(error)) => return Err(PayloadError::Token(error.clone())),
                    None => return Err(PayloadError::Token("not requested".to_owned())),
                };
                add(&mut payload, &source.path, token, mode)?;
            } else {
                return Err(PayloadError::UnsupportedSource);
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(payload))
}

fn add(payload: &mut Payload, path: &str, data: Vec<u8>, mode: i32) -> Result<(), PayloadError> {
    if !is_valid_path(path) {
        return Err(PayloadError::InvalidPath(path.to_owned()));
    }
    payload.insert(path.to_owned(), FileContent { data, mode: mode.unsigned_abs() & 0o777 });
    Ok(())
}

fn add_config_map(
    payload: &mut Payload,
    input: PayloadInput<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), PayloadError> {
    let Some(config_map) = input.sources.config_maps.get(name) else {
        return if optional { Ok(()) } else { Err(PayloadError::NoConfigMap(name.to_owned())) };
    };
    let all = config_map_files(config_map);
    select(payload, all, items, mode, optional, PayloadError::NoConfigMapKey)
}

fn add_secret(
    payload: &mut Payload,
    input: PayloadInput<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), PayloadError> {
    let Some(secret) = input.sources.secrets.get(name) else {
        return if optional { Ok(()) } else { Err(PayloadError::NoSecret(name.to_owned())) };
    };
    select(payload, secret_files(secret), items, mode, optional, PayloadError::NoSecretKey)
}

fn config_map_files(config_map: &ConfigMap) -> BTreeMap<&str, Vec<u8>> {
    let texts = config_map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.clone().into_bytes()));
    let binaries = config_map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.clone()));
    texts.chain(binaries).collect()
}

fn secret_files(secret: &Secret) -> BTreeMap<&str, Vec<u8>> {
    secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.clone())).collect()
}

fn select(
    payload: &mut Payload,
    mut all: BTreeMap<&str, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    missing: fn(String) -> PayloadError,
) -> Result<(), PayloadError> {
    match items.filter(|items| !items.is_empty()) {
        None => all.into_iter().try_for_each(|(key, data)| add(payload, key, data, mode)),
        Some(items) => items.iter().try_for_each(|item| match all.get_mut(item.key.as_str()) {
            Some(data) => add(payload, &item.path, data.clone(), item.mode.unwrap_or(mode)),
            None if optional => Ok(()),
            None => Err(missing(item.key.clone())),
        }),
    }
}

fn add_downward(
    payload: &mut Payload,
    input: PayloadInput<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
) -> Result<(), PayloadError> {
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(input.pod, input.facts, &field.field_path)?,
            (None, Some(resource)) => resource_value(input.pod, None, input.facts, resource)?,
            (None, None) => continue,
        };
        add(payload, &item.path, text.into_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn payload(volume: Value) -> Result<Option<Payload>, PayloadError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "1"}}, "spec": {"containers": []}}))
        .unwrap();
        let config_map = json!({"data": {"k": "v", "l": "w"}, "binaryData": {"b": "AAE="}});
        let secret = json!({"data": {"pw": "c2VjcmV0"}});
        let sources = Sources {
            config_maps: [("cm".to_owned(), Arc::new(serde_json::from_value(config_map).unwrap()))].into(),
            secrets: [("s".to_owned(), Arc::new(serde_json::from_value(secret).unwrap()))].into(),
        };
        let tokens =
            [(TokenKey { audience: String::new(), expiration_seconds: 3607 }, Ok("t".to_owned()))].into();
        let facts = PodFacts::default();
        let input = PayloadInput { pod: &pod, sources: &sources, facts: &facts, tokens: &tokens };
        volume_payload(input, &serde_json::from_value(volume).unwrap())
    }

    fn paths(payload: &Payload) -> Vec<(String, String, u32)> {
        payload
            .iter()
            .map(|(path, f)| (path.clone(), String::from_utf8_lossy(&f.data).into_owned(), f.mode))
            .collect()
    }

    #[test]
    fn a_projected_volume_holds_the_files_of_all_its_sources() {
        let files = payload(json!({"name": "v", "projected": {"defaultMode": 0o400, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "cm", "items": [{"key": "k", "path": "d/k", "mode": 0o600}]}},
            {"secret": {"name": "s"}},
            {"secret": {"name": "none", "optional": true}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ]}}))
        .unwrap()
        .unwrap();
        let expected = [
            ("d/k", "v", 0o600),
            ("labels", "a=\"1\"", 0o400),
            ("pw", "secret", 0o400),
            ("token", "t", 0o400),
        ];
        assert_eq!(paths(&files), expected.map(|(p, d, m)| (p.to_owned(), d.to_owned(), m)));
    }

    #[test]
    fn missing_objects_and_keys_are_errors_unless_optional() {
        for (source, error) in [
            (json!({"configMap": {"name": "x"}}), "configmap \"x\" not found"),
            (json!({"secret": {"secretName": "x"}}), "secret \"x\" not found"),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
                "configmap references non-existent config key: z",
            ),
            (
                json!({"secret": {"secretName": "s", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent secret key: z",
            ),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "k", "path": "../z"}]}}),
                "invalid path \"../z\"",
            ),
        ] {
            let mut volume = source.clone();
            volume["name"] = json!("v");
            assert_eq!(payload(volume).unwrap_err().to_string(), error);
        }
        let volume = json!({"name": "v", "configMap": {"name": "x", "optional": true}});
        assert_eq!(payload(volume).unwrap().unwrap().len(), 0);
        assert_eq!(payload(json!({"name": "v", "emptyDir": {}})).unwrap(), None);
    }
}

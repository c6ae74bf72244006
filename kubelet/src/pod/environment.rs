//! A container's environment variables.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::expansion::expand;
use super::field_ref::{FieldError, PodFacts, field_value, resource_value};
use super::sources::Sources;

/// Why a container cannot be configured, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// The ConfigMap does not exist.
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    /// The Secret does not exist.
    #[error("secret {0:?} not found")]
    NoSecret(String),
    /// The ConfigMap has no such key.
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey {
        /// Namespace.
        namespace: String,
        /// ConfigMap.
        name: String,
        /// Key.
        key: String,
    },
    /// The Secret has no such key.
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey {
        /// Namespace.
        namespace: String,
        /// Secret.
        name: String,
        /// Key.
        key: String,
    },
    /// A field or resource reference.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A kind of source that this node does not have.
    #[error("unsupported source of environment variable {0}")]
    UnsupportedSource(String),
}

/// Everything that the variables are made from.
#[derive(Debug, Clone, Copy)]
pub struct EnvironmentInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// ConfigMaps and Secrets.
    pub sources: &'a Sources,
    /// Addresses and allocatable resources.
    pub facts: &'a PodFacts,
    /// Variables of Services.
    pub services: &'a BTreeMap<String, String>,
}

/// The variables of a container: those of Services, then `envFrom`, then `env`, later ones winning.
pub fn container_environment(
    input: EnvironmentInput<'_>,
    container: &Container,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut variables = input.services.clone();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match input.sources.config_maps.get(&reference.name) {
                Some(config_map) => {
                    for (key, value) in config_map.data.iter().flatten() {
                        insert(&mut variables, format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvironmentError::NoConfigMap(reference.name.clone())),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match input.sources.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = String::from_utf8_lossy(&value.0).into_owned();
                        insert(&mut variables, format!("{prefix}{key}"), value);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvironmentError::NoSecret(reference.name.clone())),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value_from, variable.value.as_deref()) {
            (_, Some(value)) if !value.is_empty() => Some(expand(value, &variables)),
            (Some(source), _) => sourced(input, container, &variable.name, source)?,
            (None, _) => Some(String::new()),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

fn insert(variables: &mut BTreeMap<String, String>, name: String, value: String) {
    // Names that cannot be in an environment are left out, as in Kubernetes.
    if !name.is_empty() && !name.contains('=') && name.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        variables.insert(name, value);
    }
}

fn sourced(
    input: EnvironmentInput<'_>,
    container: &Container,
    variable: &str,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvironmentError> {
    let namespace = input.pod.metadata.namespace.clone().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return Ok(Some(field_value(input.pod, input.facts, &field.field_path)?));
    }
    if let Some(resource) = &source.resource_field_ref {
        return Ok(Some(resource_value(input.pod, Some(container), input.facts, resource)?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let is_optional = reference.optional == Some(true);
        let Some(config_map) = input.sources.config_maps.get(&reference.name) else {
            return if is_optional {
                Ok(None)
            } else {
                Err(EnvironmentError::NoConfigMap(reference.name.clone()))
            };
        };
        return match config_map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if is_optional => Ok(None),
            None => Err(EnvironmentError::NoConfigMapKey {
                namespace,
                name: reference.name.clone(),
                key: reference.key.clone(),
            }),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let is_optional = reference.optional == Some(true);
        let Some(secret) = input.sources.secrets.get(&reference.name) else {
            return if is_optional {
                Ok(None)
            } else {
                Err(EnvironmentError::NoSecret(reference.name.clone()))
            };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if is_optional => Ok(None),
            None => Err(EnvironmentError::NoSecretKey {
                namespace,
                name: reference.name.clone(),
                key: reference.key.clone(),
            }),
        };
    }
    Err(EnvironmentError::UnsupportedSource(variable.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn environment(env: Value, env_from: Value) -> Result<BTreeMap<String, String>, EnvironmentError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "env": env, "envFrom": env_from}]},
        }))
        .unwrap();
        let config_map = json!({"metadata": {"name": "cm"}, "data": {"k": "from-cm", "a=b": "dropped"}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"pw": "c2VjcmV0"}});
        let sources = Sources {
            config_maps: [("cm".to_owned(), Arc::new(serde_json::from_value(config_map).unwrap()))].into(),
            secrets: [("s".to_owned(), Arc::new(serde_json::from_value(secret).unwrap()))].into(),
        };
        let services = [("SVC_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned())].into();
        let facts = PodFacts { pod_ips: vec!["127.64.0.2".into()], ..PodFacts::default() };
        let input = EnvironmentInput { pod: &pod, sources: &sources, facts: &facts, services: &services };
        container_environment(input, &pod.spec.as_ref().unwrap().containers[0])
    }

    #[test]
    fn variables_come_from_every_source_and_later_ones_win() {
        let variables = environment(
            json!([
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)-$(k)-$(SVC_SERVICE_HOST)-$(NOPE)"},
                {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x", "optional": true}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "E"},
            ]),
            json!([{"configMapRef": {"name": "cm"}}, {"prefix": "P_", "secretRef": {"name": "s"}},
                   {"configMapRef": {"name": "none", "optional": true}}]),
        )
        .unwrap();
        let expected = [
            ("A", "1"),
            ("B", "1-from-cm-10.0.0.1-$(NOPE)"),
            ("C", "secret"),
            ("E", ""),
            ("IP", "127.64.0.2"),
            ("P_pw", "secret"),
            ("SVC_SERVICE_HOST", "10.0.0.1"),
            ("k", "from-cm"),
        ];
        assert_eq!(variables, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn what_is_missing_is_named_in_kubernetes_words() {
        for (source, text) in [
            (json!({"configMapKeyRef": {"name": "x", "key": "k"}}), "configmap \"x\" not found"),
            (json!({"configMapKeyRef": {"name": "cm", "key": "z"}}), "couldn't find key z in ConfigMap n/cm"),
            (json!({"secretKeyRef": {"name": "x", "key": "k"}}), "secret \"x\" not found"),
            (json!({"secretKeyRef": {"name": "s", "key": "z"}}), "couldn't find key z in Secret n/s"),
        ] {
            let error = environment(json!([{"name": "A", "valueFrom": source}]), json!([])).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        let error = environment(json!([]), json!([{"secretRef": {"name": "x"}}])).unwrap_err();
        assert_eq!(error.to_string(), "secret \"x\" not found");
    }
}

//! The ConfigMaps and Secrets that a pod names, and their content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

/// Names of what a pod reads, in its own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

impl References {
    /// Everything that a pod's environment, volumes and image pulls name.
    pub fn of(pod: &Pod) -> Self {
        let mut found = Self::default();
        let Some(spec) = &pod.spec else { return found };
        let ephemeral = super::ephemeral::ephemeral_containers(pod);
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten()).chain(&ephemeral);
        for container in all {
            for source in container.env_from.iter().flatten() {
                found.config_maps.extend(source.config_map_ref.as_ref().map(|r| r.name.clone()));
                found.secrets.extend(source.secret_ref.as_ref().map(|r| r.name.clone()));
            }
            for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
                found.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
                found.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
            }
        }
        for volume in spec.volumes.iter().flatten() {
            found.config_maps.extend(volume.config_map.as_ref().map(|v| v.name.clone()));
            found.secrets.extend(volume.secret.as_ref().and_then(|v| v.secret_name.clone()));
            let projected = volume.projected.as_ref().and_then(|p| p.sources.as_deref()).unwrap_or_default();
            for source in projected {
                found.config_maps.extend(source.config_map.as_ref().map(|v| v.name.clone()));
                found.secrets.extend(source.secret.as_ref().map(|v| v.name.clone()));
            }
        }
        found.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
        found.config_maps.remove("");
        found.secrets.remove("");
        found
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty()
    }
}

/// Content of ConfigMaps and Secrets by name; a name that is not in here does not exist.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// ConfigMaps that exist.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets that exist.
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

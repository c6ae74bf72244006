//! What a runtime says of itself, and what it is told once.

use serde::{Deserialize, Serialize};

/// Name and versions of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionResponse {
    pub version: String,
    pub runtime_name: String,
    pub runtime_version: String,
    pub runtime_api_version: String,
}

/// One fact about the health of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeCondition {
    pub r#type: String,
    pub status: bool,
    pub reason: String,
    pub message: String,
}

/// Health of a runtime; `RuntimeReady` and `NetworkReady` are always among the conditions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeStatus {
    pub conditions: Vec<RuntimeCondition>,
}

/// What a handler can do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeHandlerFeatures {
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

/// One handler that sandboxes may ask for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeHandler {
    pub name: String,
    pub features: Option<RuntimeHandlerFeatures>,
}

/// What a runtime can do whatever the handler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeFeatures {
    pub supplemental_groups_policy: bool,
}

/// Health, handlers and features of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusResponse {
    pub status: RuntimeStatus,
    pub runtime_handlers: Vec<RuntimeHandler>,
    pub features: Option<RuntimeFeatures>,
}

/// The node's part of the pod network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    pub pod_cidr: String,
}

/// What the kubelet tells a runtime once it knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    pub network_config: NetworkConfig,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CgroupDriver {
    #[default]
    Systemd,
    Cgroupfs,
}

/// Settings of a runtime that the kubelet follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxRuntimeConfiguration {
    pub cgroup_driver: CgroupDriver,
}

/// Settings of a runtime that the kubelet follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfigResponse {
    pub linux: Option<LinuxRuntimeConfiguration>,
}

//! What a runtime says of itself, and what it is told once.

use k8s_cri::v1 as wire;
use wherry_runtimes as plain;

use super::{Convert, convert_enum, known, list};

impl Convert<plain::VersionResponse> for wire::VersionResponse {
    fn convert(self) -> plain::VersionResponse {
        plain::VersionResponse {
            version: self.version,
            runtime_name: self.runtime_name,
            runtime_version: self.runtime_version,
            runtime_api_version: self.runtime_api_version,
        }
    }
}

impl Convert<wire::VersionResponse> for plain::VersionResponse {
    fn convert(self) -> wire::VersionResponse {
        wire::VersionResponse {
            version: self.version,
            runtime_name: self.runtime_name,
            runtime_version: self.runtime_version,
            runtime_api_version: self.runtime_api_version,
        }
    }
}

impl Convert<plain::RuntimeCondition> for wire::RuntimeCondition {
    fn convert(self) -> plain::RuntimeCondition {
        plain::RuntimeCondition {
            r#type: self.r#type,
            status: self.status,
            reason: self.reason,
            message: self.message,
        }
    }
}

impl Convert<wire::RuntimeCondition> for plain::RuntimeCondition {
    fn convert(self) -> wire::RuntimeCondition {
        wire::RuntimeCondition {
            r#type: self.r#type,
            status: self.status,
            reason: self.reason,
            message: self.message,
        }
    }
}

impl Convert<plain::RuntimeStatus> for wire::RuntimeStatus {
    fn convert(self) -> plain::RuntimeStatus {
        plain::RuntimeStatus { conditions: list(self.conditions) }
    }
}

impl Convert<wire::RuntimeStatus> for plain::RuntimeStatus {
    fn convert(self) -> wire::RuntimeStatus {
        wire::RuntimeStatus { conditions: list(self.conditions) }
    }
}

impl Convert<plain::RuntimeHandlerFeatures> for wire::RuntimeHandlerFeatures {
    fn convert(self) -> plain::RuntimeHandlerFeatures {
        plain::RuntimeHandlerFeatures {
            recursive_read_only_mounts: self.recursive_read_only_mounts,
            user_namespaces: self.user_namespaces,
        }
    }
}

impl Convert<wire::RuntimeHandlerFeatures> for plain::RuntimeHandlerFeatures {
    fn convert(self) -> wire::RuntimeHandlerFeatures {
        wire::RuntimeHandlerFeatures {
            recursive_read_only_mounts: self.recursive_read_only_mounts,
            user_namespaces: self.user_namespaces,
        }
    }
}

impl Convert<plain::RuntimeHandler> for wire::RuntimeHandler {
    fn convert(self) -> plain::RuntimeHandler {
        plain::RuntimeHandler { name: self.name, features: self.features.map(Convert::convert) }
    }
}

impl Convert<wire::RuntimeHandler> for plain::RuntimeHandler {
    fn convert(self) -> wire::RuntimeHandler {
        wire::RuntimeHandler { name: self.name, features: self.features.map(Convert::convert) }
    }
}

impl Convert<plain::RuntimeFeatures> for wire::RuntimeFeatures {
    fn convert(self) -> plain::RuntimeFeatures {
        plain::RuntimeFeatures { supplemental_groups_policy: self.supplemental_groups_policy }
    }
}

impl Convert<wire::RuntimeFeatures> for plain::RuntimeFeatures {
    fn convert(self) -> wire::RuntimeFeatures {
        wire::RuntimeFeatures { supplemental_groups_policy: self.supplemental_groups_policy }
    }
}

impl Convert<plain::StatusResponse> for wire::StatusResponse {
    fn convert(self) -> plain::StatusResponse {
        plain::StatusResponse {
            status: self.status.unwrap_or_default().convert(),
            runtime_handlers: list(self.runtime_handlers),
            features: self.features.map(Convert::convert),
        }
    }
}

impl Convert<wire::StatusResponse> for plain::StatusResponse {
    fn convert(self) -> wire::StatusResponse {
        wire::StatusResponse {
            status: Some(self.status.convert()),
            runtime_handlers: list(self.runtime_handlers),
            features: self.features.map(Convert::convert),
            ..Default::default()
        }
    }
}

impl Convert<plain::NetworkConfig> for wire::NetworkConfig {
    fn convert(self) -> plain::NetworkConfig {
        plain::NetworkConfig { pod_cidr: self.pod_cidr }
    }
}

impl Convert<wire::NetworkConfig> for plain::NetworkConfig {
    fn convert(self) -> wire::NetworkConfig {
        wire::NetworkConfig { pod_cidr: self.pod_cidr }
    }
}

impl Convert<plain::RuntimeConfig> for wire::RuntimeConfig {
    fn convert(self) -> plain::RuntimeConfig {
        plain::RuntimeConfig { network_config: self.network_config.unwrap_or_default().convert() }
    }
}

impl Convert<wire::RuntimeConfig> for plain::RuntimeConfig {
    fn convert(self) -> wire::RuntimeConfig {
        wire::RuntimeConfig { network_config: Some(self.network_config.convert()) }
    }
}
convert_enum!(wire::CgroupDriver => plain::CgroupDriver { Systemd => Systemd, Cgroupfs => Cgroupfs });

impl Convert<plain::LinuxRuntimeConfiguration> for wire::LinuxRuntimeConfiguration {
    fn convert(self) -> plain::LinuxRuntimeConfiguration {
        plain::LinuxRuntimeConfiguration {
            cgroup_driver: known::<wire::CgroupDriver>(self.cgroup_driver).convert(),
        }
    }
}

impl Convert<wire::LinuxRuntimeConfiguration> for plain::LinuxRuntimeConfiguration {
    fn convert(self) -> wire::LinuxRuntimeConfiguration {
        wire::LinuxRuntimeConfiguration {
            cgroup_driver: Convert::<wire::CgroupDriver>::convert(self.cgroup_driver).into(),
        }
    }
}

impl Convert<plain::RuntimeConfigResponse> for wire::RuntimeConfigResponse {
    fn convert(self) -> plain::RuntimeConfigResponse {
        plain::RuntimeConfigResponse { linux: self.linux.map(Convert::convert) }
    }
}

impl Convert<wire::RuntimeConfigResponse> for plain::RuntimeConfigResponse {
    fn convert(self) -> wire::RuntimeConfigResponse {
        wire::RuntimeConfigResponse { linux: self.linux.map(Convert::convert) }
    }
}

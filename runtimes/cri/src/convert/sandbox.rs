//! Pod sandboxes: configuration, status, list items, filters.

use k8s_cri::v1 as wire;
use wherry_runtimes as plain;

use super::{Convert, convert_enum, known, list, map};

impl Convert<plain::DnsConfig> for wire::DnsConfig {
    fn convert(self) -> plain::DnsConfig {
        plain::DnsConfig { servers: self.servers, searches: self.searches, options: self.options }
    }
}

impl Convert<wire::DnsConfig> for plain::DnsConfig {
    fn convert(self) -> wire::DnsConfig {
        wire::DnsConfig { servers: self.servers, searches: self.searches, options: self.options }
    }
}

impl Convert<plain::PortMapping> for wire::PortMapping {
    fn convert(self) -> plain::PortMapping {
        plain::PortMapping {
            protocol: known::<wire::Protocol>(self.protocol).convert(),
            container_port: self.container_port,
            host_port: self.host_port,
            host_ip: self.host_ip,
        }
    }
}

impl Convert<wire::PortMapping> for plain::PortMapping {
    fn convert(self) -> wire::PortMapping {
        wire::PortMapping {
            protocol: Convert::<wire::Protocol>::convert(self.protocol).into(),
            container_port: self.container_port,
            host_port: self.host_port,
            host_ip: self.host_ip,
        }
    }
}

impl Convert<plain::LinuxPodSandboxConfig> for wire::LinuxPodSandboxConfig {
    fn convert(self) -> plain::LinuxPodSandboxConfig {
        plain::LinuxPodSandboxConfig {
            cgroup_parent: self.cgroup_parent,
            security_context: self.security_context.map(Convert::convert),
            sysctls: map(self.sysctls),
            overhead: self.overhead.map(Convert::convert),
            resources: self.resources.map(Convert::convert),
        }
    }
}

impl Convert<wire::LinuxPodSandboxConfig> for plain::LinuxPodSandboxConfig {
    fn convert(self) -> wire::LinuxPodSandboxConfig {
        wire::LinuxPodSandboxConfig {
            cgroup_parent: self.cgroup_parent,
            security_context: self.security_context.map(Convert::convert),
            sysctls: map(self.sysctls),
            overhead: self.overhead.map(Convert::convert),
            resources: self.resources.map(Convert::convert),
        }
    }
}

impl Convert<plain::PodSandboxMetadata> for wire::PodSandboxMetadata {
    fn convert(self) -> plain::PodSandboxMetadata {
        plain::PodSandboxMetadata {
            name: self.name,
            uid: self.uid,
            namespace: self.namespace,
            attempt: self.attempt,
        }
    }
}

impl Convert<wire::PodSandboxMetadata> for plain::PodSandboxMetadata {
    fn convert(self) -> wire::PodSandboxMetadata {
        wire::PodSandboxMetadata {
            name: self.name,
            uid: self.uid,
            namespace: self.namespace,
            attempt: self.attempt,
        }
    }
}

impl Convert<plain::PodSandboxConfig> for wire::PodSandboxConfig {
    fn convert(self) -> plain::PodSandboxConfig {
        plain::PodSandboxConfig {
            metadata: self.metadata.unwrap_or_default().convert(),
            hostname: self.hostname,
            log_directory: self.log_directory,
            dns_config: self.dns_config.map(Convert::convert),
            port_mappings: list(self.port_mappings),
            labels: map(self.labels),
            annotations: map(self.annotations),
            linux: self.linux.map(Convert::convert),
        }
    }
}

impl Convert<wire::PodSandboxConfig> for plain::PodSandboxConfig {
    fn convert(self) -> wire::PodSandboxConfig {
        wire::PodSandboxConfig {
            metadata: Some(self.metadata.convert()),
            hostname: self.hostname,
            log_directory: self.log_directory,
            dns_config: self.dns_config.map(Convert::convert),
            port_mappings: list(self.port_mappings),
            labels: map(self.labels),
            annotations: map(self.annotations),
            linux: self.linux.map(Convert::convert),
            ..Default::default()
        }
    }
}

impl Convert<plain::PodIp> for wire::PodIp {
    fn convert(self) -> plain::PodIp {
        plain::PodIp { ip: self.ip }
    }
}

impl Convert<wire::PodIp> for plain::PodIp {
    fn convert(self) -> wire::PodIp {
        wire::PodIp { ip: self.ip }
    }
}

impl Convert<plain::PodSandboxNetworkStatus> for wire::PodSandboxNetworkStatus {
    fn convert(self) -> plain::PodSandboxNetworkStatus {
        plain::PodSandboxNetworkStatus { ip: self.ip, additional_ips: list(self.additional_ips) }
    }
}

impl Convert<wire::PodSandboxNetworkStatus> for plain::PodSandboxNetworkStatus {
    fn convert(self) -> wire::PodSandboxNetworkStatus {
        wire::PodSandboxNetworkStatus { ip: self.ip, additional_ips: list(self.additional_ips) }
    }
}

impl Convert<plain::Namespace> for wire::Namespace {
    fn convert(self) -> plain::Namespace {
        plain::Namespace { options: self.options.map(Convert::convert) }
    }
}

impl Convert<wire::Namespace> for plain::Namespace {
    fn convert(self) -> wire::Namespace {
        wire::Namespace { options: self.options.map(Convert::convert) }
    }
}

impl Convert<plain::LinuxPodSandboxStatus> for wire::LinuxPodSandboxStatus {
    fn convert(self) -> plain::LinuxPodSandboxStatus {
        plain::LinuxPodSandboxStatus { namespaces: self.namespaces.map(Convert::convert) }
    }
}

impl Convert<wire::LinuxPodSandboxStatus> for plain::LinuxPodSandboxStatus {
    fn convert(self) -> wire::LinuxPodSandboxStatus {
        wire::LinuxPodSandboxStatus { namespaces: self.namespaces.map(Convert::convert) }
    }
}

impl Convert<plain::PodSandboxStatus> for wire::PodSandboxStatus {
    fn convert(self) -> plain::PodSandboxStatus {
        plain::PodSandboxStatus {
            id: self.id,
            metadata: self.metadata.unwrap_or_default().convert(),
            state: known::<wire::PodSandboxState>(self.state).convert(),
            created_at: self.created_at,
            network: self.network.map(Convert::convert),
            linux: self.linux.map(Convert::convert),
            labels: map(self.labels),
            annotations: map(self.annotations),
            runtime_handler: self.runtime_handler,
        }
    }
}

impl Convert<wire::PodSandboxStatus> for plain::PodSandboxStatus {
    fn convert(self) -> wire::PodSandboxStatus {
        wire::PodSandboxStatus {
            id: self.id,
            metadata: Some(self.metadata.convert()),
            state: Convert::<wire::PodSandboxState>::convert(self.state).into(),
            created_at: self.created_at,
            network: self.network.map(Convert::convert),
            linux: self.linux.map(Convert::convert),
            labels: map(self.labels),
            annotations: map(self.annotations),
            runtime_handler: self.runtime_handler,
        }
    }
}

impl Convert<plain::PodSandboxStatusResponse> for wire::PodSandboxStatusResponse {
    fn convert(self) -> plain::PodSandboxStatusResponse {
        plain::PodSandboxStatusResponse {
            status: self.status.unwrap_or_default().convert(),
            containers_statuses: list(self.containers_statuses),
            timestamp: self.timestamp,
        }
    }
}

impl Convert<wire::PodSandboxStatusResponse> for plain::PodSandboxStatusResponse {
    fn convert(self) -> wire::PodSandboxStatusResponse {
        wire::PodSandboxStatusResponse {
            status: Some(self.status.convert()),
            containers_statuses: list(self.containers_statuses),
            timestamp: self.timestamp,
            ..Default::default()
        }
    }
}

impl Convert<plain::PodSandboxFilter> for wire::PodSandboxFilter {
    fn convert(self) -> plain::PodSandboxFilter {
        plain::PodSandboxFilter {
            id: self.id,
            state: self.state.map(|v| v.state().convert()),
            label_selector: map(self.label_selector),
        }
    }
}

impl Convert<wire::PodSandboxFilter> for plain::PodSandboxFilter {
    fn convert(self) -> wire::PodSandboxFilter {
        wire::PodSandboxFilter {
            id: self.id,
            state: self.state.map(|state| wire::PodSandboxStateValue {
                state: Convert::<wire::PodSandboxState>::convert(state).into(),
            }),
            label_selector: map(self.label_selector),
        }
    }
}

impl Convert<plain::PodSandbox> for wire::PodSandbox {
    fn convert(self) -> plain::PodSandbox {
        plain::PodSandbox {
            id: self.id,
            metadata: self.metadata.unwrap_or_default().convert(),
            state: known::<wire::PodSandboxState>(self.state).convert(),
            created_at: self.created_at,
            labels: map(self.labels),
            annotations: map(self.annotations),
            runtime_handler: self.runtime_handler,
        }
    }
}

impl Convert<wire::PodSandbox> for plain::PodSandbox {
    fn convert(self) -> wire::PodSandbox {
        wire::PodSandbox {
            id: self.id,
            metadata: Some(self.metadata.convert()),
            state: Convert::<wire::PodSandboxState>::convert(self.state).into(),
            created_at: self.created_at,
            labels: map(self.labels),
            annotations: map(self.annotations),
            runtime_handler: self.runtime_handler,
        }
    }
}
convert_enum!(wire::Protocol => plain::Protocol { Tcp => Tcp, Udp => Udp, Sctp => Sctp });
convert_enum!(wire::PodSandboxState => plain::PodSandboxState { SandboxReady => Ready, SandboxNotready => NotReady });

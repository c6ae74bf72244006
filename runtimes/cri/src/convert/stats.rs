//! Resource usage of containers and sandboxes.

use k8s_cri::v1 as wire;
use wherry_runtimes as plain;

use super::{Convert, list, map};

impl Convert<plain::CpuUsage> for wire::CpuUsage {
    fn convert(self) -> plain::CpuUsage {
        plain::CpuUsage {
            timestamp: self.timestamp,
            usage_core_nano_seconds: self.usage_core_nano_seconds.map(|v| v.value),
            usage_nano_cores: self.usage_nano_cores.map(|v| v.value),
        }
    }
}

impl Convert<wire::CpuUsage> for plain::CpuUsage {
    fn convert(self) -> wire::CpuUsage {
        wire::CpuUsage {
            timestamp: self.timestamp,
            usage_core_nano_seconds: self.usage_core_nano_seconds.map(|value| wire::UInt64Value { value }),
            usage_nano_cores: self.usage_nano_cores.map(|value| wire::UInt64Value { value }),
        }
    }
}

impl Convert<plain::MemoryUsage> for wire::MemoryUsage {
    fn convert(self) -> plain::MemoryUsage {
        plain::MemoryUsage {
            timestamp: self.timestamp,
            working_set_bytes: self.working_set_bytes.map(|v| v.value),
            available_bytes: self.available_bytes.map(|v| v.value),
            usage_bytes: self.usage_bytes.map(|v| v.value),
            rss_bytes: self.rss_bytes.map(|v| v.value),
            page_faults: self.page_faults.map(|v| v.value),
            major_page_faults: self.major_page_faults.map(|v| v.value),
        }
    }
}

impl Convert<wire::MemoryUsage> for plain::MemoryUsage {
    fn convert(self) -> wire::MemoryUsage {
        wire::MemoryUsage {
            timestamp: self.timestamp,
            working_set_bytes: self.working_set_bytes.map(|value| wire::UInt64Value { value }),
            available_bytes: self.available_bytes.map(|value| wire::UInt64Value { value }),
            usage_bytes: self.usage_bytes.map(|value| wire::UInt64Value { value }),
            rss_bytes: self.rss_bytes.map(|value| wire::UInt64Value { value }),
            page_faults: self.page_faults.map(|value| wire::UInt64Value { value }),
            major_page_faults: self.major_page_faults.map(|value| wire::UInt64Value { value }),
        }
    }
}

impl Convert<plain::SwapUsage> for wire::SwapUsage {
    fn convert(self) -> plain::SwapUsage {
        plain::SwapUsage {
            timestamp: self.timestamp,
            swap_available_bytes: self.swap_available_bytes.map(|v| v.value),
            swap_usage_bytes: self.swap_usage_bytes.map(|v| v.value),
        }
    }
}

impl Convert<wire::SwapUsage> for plain::SwapUsage {
    fn convert(self) -> wire::SwapUsage {
        wire::SwapUsage {
            timestamp: self.timestamp,
            swap_available_bytes: self.swap_available_bytes.map(|value| wire::UInt64Value { value }),
            swap_usage_bytes: self.swap_usage_bytes.map(|value| wire::UInt64Value { value }),
        }
    }
}

impl Convert<plain::NetworkInterfaceUsage> for wire::NetworkInterfaceUsage {
    fn convert(self) -> plain::NetworkInterfaceUsage {
        plain::NetworkInterfaceUsage {
            name: self.name,
            rx_bytes: self.rx_bytes.map(|v| v.value),
            rx_errors: self.rx_errors.map(|v| v.value),
            tx_bytes: self.tx_bytes.map(|v| v.value),
            tx_errors: self.tx_errors.map(|v| v.value),
        }
    }
}

impl Convert<wire::NetworkInterfaceUsage> for plain::NetworkInterfaceUsage {
    fn convert(self) -> wire::NetworkInterfaceUsage {
        wire::NetworkInterfaceUsage {
            name: self.name,
            rx_bytes: self.rx_bytes.map(|value| wire::UInt64Value { value }),
            rx_errors: self.rx_errors.map(|value| wire::UInt64Value { value }),
            tx_bytes: self.tx_bytes.map(|value| wire::UInt64Value { value }),
            tx_errors: self.tx_errors.map(|value| wire::UInt64Value { value }),
        }
    }
}

impl Convert<plain::NetworkUsage> for wire::NetworkUsage {
    fn convert(self) -> plain::NetworkUsage {
        plain::NetworkUsage {
            timestamp: self.timestamp,
            default_interface: self.default_interface.map(Convert::convert),
            interfaces: list(self.interfaces),
        }
    }
}

impl Convert<wire::NetworkUsage> for plain::NetworkUsage {
    fn convert(self) -> wire::NetworkUsage {
        wire::NetworkUsage {
            timestamp: self.timestamp,
            default_interface: self.default_interface.map(Convert::convert),
            interfaces: list(self.interfaces),
        }
    }
}

impl Convert<plain::ProcessUsage> for wire::ProcessUsage {
    fn convert(self) -> plain::ProcessUsage {
        plain::ProcessUsage { timestamp: self.timestamp, process_count: self.process_count.map(|v| v.value) }
    }
}

impl Convert<wire::ProcessUsage> for plain::ProcessUsage {
    fn convert(self) -> wire::ProcessUsage {
        wire::ProcessUsage {
            timestamp: self.timestamp,
            process_count: self.process_count.map(|value| wire::UInt64Value { value }),
        }
    }
}

impl Convert<plain::ContainerAttributes> for wire::ContainerAttributes {
    fn convert(self) -> plain::ContainerAttributes {
        plain::ContainerAttributes {
            id: self.id,
            metadata: self.metadata.unwrap_or_default().convert(),
            labels: map(self.labels),
            annotations: map(self.annotations),
        }
    }
}

impl Convert<wire::ContainerAttributes> for plain::ContainerAttributes {
    fn convert(self) -> wire::ContainerAttributes {
        wire::ContainerAttributes {
            id: self.id,
            metadata: Some(self.metadata.convert()),
            labels: map(self.labels),
            annotations: map(self.annotations),
        }
    }
}

impl Convert<plain::ContainerStats> for wire::ContainerStats {
    fn convert(self) -> plain::ContainerStats {
        plain::ContainerStats {
            attributes: self.attributes.unwrap_or_default().convert(),
            cpu: self.cpu.map(Convert::convert),
            memory: self.memory.map(Convert::convert),
            writable_layer: self.writable_layer.map(Convert::convert),
            swap: self.swap.map(Convert::convert),
        }
    }
}

impl Convert<wire::ContainerStats> for plain::ContainerStats {
    fn convert(self) -> wire::ContainerStats {
        wire::ContainerStats {
            attributes: Some(self.attributes.convert()),
            cpu: self.cpu.map(Convert::convert),
            memory: self.memory.map(Convert::convert),
            writable_layer: self.writable_layer.map(Convert::convert),
            swap: self.swap.map(Convert::convert),
        }
    }
}

impl Convert<plain::ContainerStatsFilter> for wire::ContainerStatsFilter {
    fn convert(self) -> plain::ContainerStatsFilter {
        plain::ContainerStatsFilter {
            id: self.id,
            pod_sandbox_id: self.pod_sandbox_id,
            label_selector: map(self.label_selector),
        }
    }
}

impl Convert<wire::ContainerStatsFilter> for plain::ContainerStatsFilter {
    fn convert(self) -> wire::ContainerStatsFilter {
        wire::ContainerStatsFilter {
            id: self.id,
            pod_sandbox_id: self.pod_sandbox_id,
            label_selector: map(self.label_selector),
        }
    }
}

impl Convert<plain::PodSandboxAttributes> for wire::PodSandboxAttributes {
    fn convert(self) -> plain::PodSandboxAttributes {
        plain::PodSandboxAttributes {
            id: self.id,
            metadata: self.metadata.unwrap_or_default().convert(),
            labels: map(self.labels),
            annotations: map(self.annotations),
        }
    }
}

impl Convert<wire::PodSandboxAttributes> for plain::PodSandboxAttributes {
    fn convert(self) -> wire::PodSandboxAttributes {
        wire::PodSandboxAttributes {
            id: self.id,
            metadata: Some(self.metadata.convert()),
            labels: map(self.labels),
            annotations: map(self.annotations),
        }
    }
}

impl Convert<plain::LinuxPodSandboxStats> for wire::LinuxPodSandboxStats {
    fn convert(self) -> plain::LinuxPodSandboxStats {
        plain::LinuxPodSandboxStats {
            cpu: self.cpu.map(Convert::convert),
            memory: self.memory.map(Convert::convert),
            network: self.network.map(Convert::convert),
            process: self.process.map(Convert::convert),
            containers: list(self.containers),
        }
    }
}

impl Convert<wire::LinuxPodSandboxStats> for plain::LinuxPodSandboxStats {
    fn convert(self) -> wire::LinuxPodSandboxStats {
        wire::LinuxPodSandboxStats {
            cpu: self.cpu.map(Convert::convert),
            memory: self.memory.map(Convert::convert),
            network: self.network.map(Convert::convert),
            process: self.process.map(Convert::convert),
            containers: list(self.containers),
        }
    }
}

impl Convert<plain::PodSandboxStats> for wire::PodSandboxStats {
    fn convert(self) -> plain::PodSandboxStats {
        plain::PodSandboxStats {
            attributes: self.attributes.unwrap_or_default().convert(),
            linux: self.linux.map(Convert::convert),
        }
    }
}

impl Convert<wire::PodSandboxStats> for plain::PodSandboxStats {
    fn convert(self) -> wire::PodSandboxStats {
        wire::PodSandboxStats {
            attributes: Some(self.attributes.convert()),
            linux: self.linux.map(Convert::convert),
            ..Default::default()
        }
    }
}

impl Convert<plain::PodSandboxStatsFilter> for wire::PodSandboxStatsFilter {
    fn convert(self) -> plain::PodSandboxStatsFilter {
        plain::PodSandboxStatsFilter { id: self.id, label_selector: map(self.label_selector) }
    }
}

impl Convert<wire::PodSandboxStatsFilter> for plain::PodSandboxStatsFilter {
    fn convert(self) -> wire::PodSandboxStatsFilter {
        wire::PodSandboxStatsFilter { id: self.id, label_selector: map(self.label_selector) }
    }
}

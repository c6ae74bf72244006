//! Containers: configuration, resources, status, events.

use k8s_cri::v1 as wire;
use wherry_runtimes as plain;

use super::{Convert, convert_enum, known, list, map};

impl Convert<plain::KeyValue> for wire::KeyValue {
    fn convert(self) -> plain::KeyValue {
        plain::KeyValue { key: self.key, value: self.value }
    }
}

impl Convert<wire::KeyValue> for plain::KeyValue {
    fn convert(self) -> wire::KeyValue {
        wire::KeyValue { key: self.key, value: self.value }
    }
}
convert_enum!(wire::MountPropagation => plain::MountPropagation { PropagationPrivate => Private, PropagationHostToContainer => HostToContainer, PropagationBidirectional => Bidirectional });

impl Convert<plain::Mount> for wire::Mount {
    fn convert(self) -> plain::Mount {
        plain::Mount {
            container_path: self.container_path,
            host_path: self.host_path,
            readonly: self.readonly,
            selinux_relabel: self.selinux_relabel,
            propagation: known::<wire::MountPropagation>(self.propagation).convert(),
            uid_mappings: list(self.uid_mappings),
            gid_mappings: list(self.gid_mappings),
            recursive_read_only: self.recursive_read_only,
            image: self.image.map(Convert::convert),
        }
    }
}

impl Convert<wire::Mount> for plain::Mount {
    fn convert(self) -> wire::Mount {
        wire::Mount {
            container_path: self.container_path,
            host_path: self.host_path,
            readonly: self.readonly,
            selinux_relabel: self.selinux_relabel,
            propagation: Convert::<wire::MountPropagation>::convert(self.propagation).into(),
            uid_mappings: list(self.uid_mappings),
            gid_mappings: list(self.gid_mappings),
            recursive_read_only: self.recursive_read_only,
            image: self.image.map(Convert::convert),
        }
    }
}

impl Convert<plain::LinuxContainerResources> for wire::LinuxContainerResources {
    fn convert(self) -> plain::LinuxContainerResources {
        plain::LinuxContainerResources {
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_shares: self.cpu_shares,
            memory_limit_in_bytes: self.memory_limit_in_bytes,
            oom_score_adj: self.oom_score_adj,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            hugepage_limits: list(self.hugepage_limits),
            unified: map(self.unified),
            memory_swap_limit_in_bytes: self.memory_swap_limit_in_bytes,
        }
    }
}

impl Convert<wire::LinuxContainerResources> for plain::LinuxContainerResources {
    fn convert(self) -> wire::LinuxContainerResources {
        wire::LinuxContainerResources {
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_shares: self.cpu_shares,
            memory_limit_in_bytes: self.memory_limit_in_bytes,
            oom_score_adj: self.oom_score_adj,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            hugepage_limits: list(self.hugepage_limits),
            unified: map(self.unified),
            memory_swap_limit_in_bytes: self.memory_swap_limit_in_bytes,
        }
    }
}

impl Convert<plain::HugepageLimit> for wire::HugepageLimit {
    fn convert(self) -> plain::HugepageLimit {
        plain::HugepageLimit { page_size: self.page_size, limit: self.limit }
    }
}

impl Convert<wire::HugepageLimit> for plain::HugepageLimit {
    fn convert(self) -> wire::HugepageLimit {
        wire::HugepageLimit { page_size: self.page_size, limit: self.limit }
    }
}

impl Convert<plain::LinuxContainerConfig> for wire::LinuxContainerConfig {
    fn convert(self) -> plain::LinuxContainerConfig {
        plain::LinuxContainerConfig {
            resources: self.resources.map(Convert::convert),
            security_context: self.security_context.map(Convert::convert),
        }
    }
}

impl Convert<wire::LinuxContainerConfig> for plain::LinuxContainerConfig {
    fn convert(self) -> wire::LinuxContainerConfig {
        wire::LinuxContainerConfig {
            resources: self.resources.map(Convert::convert),
            security_context: self.security_context.map(Convert::convert),
        }
    }
}

impl Convert<plain::ContainerMetadata> for wire::ContainerMetadata {
    fn convert(self) -> plain::ContainerMetadata {
        plain::ContainerMetadata { name: self.name, attempt: self.attempt }
    }
}

impl Convert<wire::ContainerMetadata> for plain::ContainerMetadata {
    fn convert(self) -> wire::ContainerMetadata {
        wire::ContainerMetadata { name: self.name, attempt: self.attempt }
    }
}

impl Convert<plain::Device> for wire::Device {
    fn convert(self) -> plain::Device {
        plain::Device {
            container_path: self.container_path,
            host_path: self.host_path,
            permissions: self.permissions,
        }
    }
}

impl Convert<wire::Device> for plain::Device {
    fn convert(self) -> wire::Device {
        wire::Device {
            container_path: self.container_path,
            host_path: self.host_path,
            permissions: self.permissions,
        }
    }
}

impl Convert<plain::CdiDevice> for wire::CdiDevice {
    fn convert(self) -> plain::CdiDevice {
        plain::CdiDevice { name: self.name }
    }
}

impl Convert<wire::CdiDevice> for plain::CdiDevice {
    fn convert(self) -> wire::CdiDevice {
        wire::CdiDevice { name: self.name }
    }
}

impl Convert<plain::ContainerConfig> for wire::ContainerConfig {
    fn convert(self) -> plain::ContainerConfig {
        plain::ContainerConfig {
            metadata: self.metadata.unwrap_or_default().convert(),
            image: self.image.unwrap_or_default().convert(),
            command: self.command,
            args: self.args,
            working_dir: self.working_dir,
            envs: list(self.envs),
            mounts: list(self.mounts),
            devices: list(self.devices),
            labels: map(self.labels),
            annotations: map(self.annotations),
            log_path: self.log_path,
            stdin: self.stdin,
            stdin_once: self.stdin_once,
            tty: self.tty,
            linux: self.linux.map(Convert::convert),
            cdi_devices: list(self.cdi_devices),
        }
    }
}

impl Convert<wire::ContainerConfig> for plain::ContainerConfig {
    fn convert(self) -> wire::ContainerConfig {
        wire::ContainerConfig {
            metadata: Some(self.metadata.convert()),
            image: Some(self.image.convert()),
            command: self.command,
            args: self.args,
            working_dir: self.working_dir,
            envs: list(self.envs),
            mounts: list(self.mounts),
            devices: list(self.devices),
            labels: map(self.labels),
            annotations: map(self.annotations),
            log_path: self.log_path,
            stdin: self.stdin,
            stdin_once: self.stdin_once,
            tty: self.tty,
            linux: self.linux.map(Convert::convert),
            cdi_devices: list(self.cdi_devices),
            ..Default::default()
        }
    }
}
convert_enum!(wire::ContainerState => plain::ContainerState { ContainerCreated => Created, ContainerRunning => Running, ContainerExited => Exited, ContainerUnknown => Unknown });

impl Convert<plain::ContainerFilter> for wire::ContainerFilter {
    fn convert(self) -> plain::ContainerFilter {
        plain::ContainerFilter {
            id: self.id,
            state: self.state.map(|v| v.state().convert()),
            pod_sandbox_id: self.pod_sandbox_id,
            label_selector: map(self.label_selector),
        }
    }
}

impl Convert<wire::ContainerFilter> for plain::ContainerFilter {
    fn convert(self) -> wire::ContainerFilter {
        wire::ContainerFilter {
            id: self.id,
            state: self.state.map(|state| wire::ContainerStateValue {
                state: Convert::<wire::ContainerState>::convert(state).into(),
            }),
            pod_sandbox_id: self.pod_sandbox_id,
            label_selector: map(self.label_selector),
        }
    }
}

impl Convert<plain::Container> for wire::Container {
    fn convert(self) -> plain::Container {
        plain::Container {
            id: self.id,
            pod_sandbox_id: self.pod_sandbox_id,
            metadata: self.metadata.unwrap_or_default().convert(),
            image: self.image.unwrap_or_default().convert(),
            image_ref: self.image_ref,
            state: known::<wire::ContainerState>(self.state).convert(),
            created_at: self.created_at,
            labels: map(self.labels),
            annotations: map(self.annotations),
            image_id: self.image_id,
        }
    }
}

impl Convert<wire::Container> for plain::Container {
    fn convert(self) -> wire::Container {
        wire::Container {
            id: self.id,
            pod_sandbox_id: self.pod_sandbox_id,
            metadata: Some(self.metadata.convert()),
            image: Some(self.image.convert()),
            image_ref: self.image_ref,
            state: Convert::<wire::ContainerState>::convert(self.state).into(),
            created_at: self.created_at,
            labels: map(self.labels),
            annotations: map(self.annotations),
            image_id: self.image_id,
        }
    }
}

impl Convert<plain::ContainerResources> for wire::ContainerResources {
    fn convert(self) -> plain::ContainerResources {
        plain::ContainerResources { linux: self.linux.map(Convert::convert) }
    }
}

impl Convert<wire::ContainerResources> for plain::ContainerResources {
    fn convert(self) -> wire::ContainerResources {
        wire::ContainerResources { linux: self.linux.map(Convert::convert), ..Default::default() }
    }
}

impl Convert<plain::ContainerUser> for wire::ContainerUser {
    fn convert(self) -> plain::ContainerUser {
        plain::ContainerUser { linux: self.linux.map(Convert::convert) }
    }
}

impl Convert<wire::ContainerUser> for plain::ContainerUser {
    fn convert(self) -> wire::ContainerUser {
        wire::ContainerUser { linux: self.linux.map(Convert::convert) }
    }
}

impl Convert<plain::ContainerStatus> for wire::ContainerStatus {
    fn convert(self) -> plain::ContainerStatus {
        plain::ContainerStatus {
            id: self.id,
            metadata: self.metadata.unwrap_or_default().convert(),
            state: known::<wire::ContainerState>(self.state).convert(),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            image: self.image.unwrap_or_default().convert(),
            image_ref: self.image_ref,
            reason: self.reason,
            message: self.message,
            labels: map(self.labels),
            annotations: map(self.annotations),
            mounts: list(self.mounts),
            log_path: self.log_path,
            resources: self.resources.map(Convert::convert),
            image_id: self.image_id,
            user: self.user.map(Convert::convert),
        }
    }
}

impl Convert<wire::ContainerStatus> for plain::ContainerStatus {
    fn convert(self) -> wire::ContainerStatus {
        wire::ContainerStatus {
            id: self.id,
            metadata: Some(self.metadata.convert()),
            state: Convert::<wire::ContainerState>::convert(self.state).into(),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            image: Some(self.image.convert()),
            image_ref: self.image_ref,
            reason: self.reason,
            message: self.message,
            labels: map(self.labels),
            annotations: map(self.annotations),
            mounts: list(self.mounts),
            log_path: self.log_path,
            resources: self.resources.map(Convert::convert),
            image_id: self.image_id,
            user: self.user.map(Convert::convert),
        }
    }
}

impl Convert<plain::ExecSyncResponse> for wire::ExecSyncResponse {
    fn convert(self) -> plain::ExecSyncResponse {
        plain::ExecSyncResponse { stdout: self.stdout, stderr: self.stderr, exit_code: self.exit_code }
    }
}

impl Convert<wire::ExecSyncResponse> for plain::ExecSyncResponse {
    fn convert(self) -> wire::ExecSyncResponse {
        wire::ExecSyncResponse { stdout: self.stdout, stderr: self.stderr, exit_code: self.exit_code }
    }
}
convert_enum!(wire::ContainerEventType => plain::ContainerEventType { ContainerCreatedEvent => Created, ContainerStartedEvent => Started, ContainerStoppedEvent => Stopped, ContainerDeletedEvent => Deleted });

impl Convert<plain::ContainerEventResponse> for wire::ContainerEventResponse {
    fn convert(self) -> plain::ContainerEventResponse {
        plain::ContainerEventResponse {
            container_id: self.container_id,
            container_event_type: known::<wire::ContainerEventType>(self.container_event_type).convert(),
            created_at: self.created_at,
            pod_sandbox_status: self.pod_sandbox_status.map(Convert::convert),
            containers_statuses: list(self.containers_statuses),
        }
    }
}

impl Convert<wire::ContainerEventResponse> for plain::ContainerEventResponse {
    fn convert(self) -> wire::ContainerEventResponse {
        wire::ContainerEventResponse {
            container_id: self.container_id,
            container_event_type: Convert::<wire::ContainerEventType>::convert(self.container_event_type)
                .into(),
            created_at: self.created_at,
            pod_sandbox_status: self.pod_sandbox_status.map(Convert::convert),
            containers_statuses: list(self.containers_statuses),
        }
    }
}

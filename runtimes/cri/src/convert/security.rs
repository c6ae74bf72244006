//! Identity and isolation of sandboxes and containers.

use k8s_cri::v1 as wire;
use wherry_runtimes as plain;

use super::{Convert, convert_enum, known, list};

impl Convert<plain::IdMapping> for wire::IdMapping {
    fn convert(self) -> plain::IdMapping {
        plain::IdMapping { host_id: self.host_id, container_id: self.container_id, length: self.length }
    }
}

impl Convert<wire::IdMapping> for plain::IdMapping {
    fn convert(self) -> wire::IdMapping {
        wire::IdMapping { host_id: self.host_id, container_id: self.container_id, length: self.length }
    }
}
convert_enum!(wire::NamespaceMode => plain::NamespaceMode { Pod => Pod, Container => Container, Node => Node, Target => Target });

impl Convert<plain::UserNamespace> for wire::UserNamespace {
    fn convert(self) -> plain::UserNamespace {
        plain::UserNamespace {
            mode: known::<wire::NamespaceMode>(self.mode).convert(),
            uids: list(self.uids),
            gids: list(self.gids),
        }
    }
}

impl Convert<wire::UserNamespace> for plain::UserNamespace {
    fn convert(self) -> wire::UserNamespace {
        wire::UserNamespace {
            mode: Convert::<wire::NamespaceMode>::convert(self.mode).into(),
            uids: list(self.uids),
            gids: list(self.gids),
        }
    }
}

impl Convert<plain::NamespaceOption> for wire::NamespaceOption {
    fn convert(self) -> plain::NamespaceOption {
        plain::NamespaceOption {
            network: known::<wire::NamespaceMode>(self.network).convert(),
            pid: known::<wire::NamespaceMode>(self.pid).convert(),
            ipc: known::<wire::NamespaceMode>(self.ipc).convert(),
            target_id: self.target_id,
            userns_options: self.userns_options.map(Convert::convert),
        }
    }
}

impl Convert<wire::NamespaceOption> for plain::NamespaceOption {
    fn convert(self) -> wire::NamespaceOption {
        wire::NamespaceOption {
            network: Convert::<wire::NamespaceMode>::convert(self.network).into(),
            pid: Convert::<wire::NamespaceMode>::convert(self.pid).into(),
            ipc: Convert::<wire::NamespaceMode>::convert(self.ipc).into(),
            target_id: self.target_id,
            userns_options: self.userns_options.map(Convert::convert),
        }
    }
}

impl Convert<plain::LinuxSandboxSecurityContext> for wire::LinuxSandboxSecurityContext {
    fn convert(self) -> plain::LinuxSandboxSecurityContext {
        plain::LinuxSandboxSecurityContext {
            namespace_options: self.namespace_options.map(Convert::convert),
            selinux_options: self.selinux_options.map(Convert::convert),
            run_as_user: self.run_as_user.map(|v| v.value),
            run_as_group: self.run_as_group.map(|v| v.value),
            readonly_rootfs: self.readonly_rootfs,
            supplemental_groups: self.supplemental_groups,
            supplemental_groups_policy: known::<wire::SupplementalGroupsPolicy>(
                self.supplemental_groups_policy,
            )
            .convert(),
            privileged: self.privileged,
            seccomp: self.seccomp.map(Convert::convert),
            apparmor: self.apparmor.map(Convert::convert),
        }
    }
}

impl Convert<wire::LinuxSandboxSecurityContext> for plain::LinuxSandboxSecurityContext {
    fn convert(self) -> wire::LinuxSandboxSecurityContext {
        wire::LinuxSandboxSecurityContext {
            namespace_options: self.namespace_options.map(Convert::convert),
            selinux_options: self.selinux_options.map(Convert::convert),
            run_as_user: self.run_as_user.map(|value| wire::Int64Value { value }),
            run_as_group: self.run_as_group.map(|value| wire::Int64Value { value }),
            readonly_rootfs: self.readonly_rootfs,
            supplemental_groups: self.supplemental_groups,
            supplemental_groups_policy: Convert::<wire::SupplementalGroupsPolicy>::convert(
                self.supplemental_groups_policy,
            )
            .into(),
            privileged: self.privileged,
            seccomp: self.seccomp.map(Convert::convert),
            apparmor: self.apparmor.map(Convert::convert),
            ..Default::default()
        }
    }
}

impl Convert<plain::SecurityProfile> for wire::SecurityProfile {
    fn convert(self) -> plain::SecurityProfile {
        plain::SecurityProfile {
            profile_type: known::<wire::security_profile::ProfileType>(self.profile_type).convert(),
            localhost_ref: self.localhost_ref,
        }
    }
}

impl Convert<wire::SecurityProfile> for plain::SecurityProfile {
    fn convert(self) -> wire::SecurityProfile {
        wire::SecurityProfile {
            profile_type: Convert::<wire::security_profile::ProfileType>::convert(self.profile_type).into(),
            localhost_ref: self.localhost_ref,
        }
    }
}
convert_enum!(wire::security_profile::ProfileType => plain::ProfileType { RuntimeDefault => RuntimeDefault, Unconfined => Unconfined, Localhost => Localhost });

impl Convert<plain::SeLinuxOption> for wire::SeLinuxOption {
    fn convert(self) -> plain::SeLinuxOption {
        plain::SeLinuxOption { user: self.user, role: self.role, r#type: self.r#type, level: self.level }
    }
}

impl Convert<wire::SeLinuxOption> for plain::SeLinuxOption {
    fn convert(self) -> wire::SeLinuxOption {
        wire::SeLinuxOption { user: self.user, role: self.role, r#type: self.r#type, level: self.level }
    }
}

impl Convert<plain::Capability> for wire::Capability {
    fn convert(self) -> plain::Capability {
        plain::Capability {
            add_capabilities: self.add_capabilities,
            drop_capabilities: self.drop_capabilities,
            add_ambient_capabilities: self.add_ambient_capabilities,
        }
    }
}

impl Convert<wire::Capability> for plain::Capability {
    fn convert(self) -> wire::Capability {
        wire::Capability {
            add_capabilities: self.add_capabilities,
            drop_capabilities: self.drop_capabilities,
            add_ambient_capabilities: self.add_ambient_capabilities,
        }
    }
}

impl Convert<plain::LinuxContainerSecurityContext> for wire::LinuxContainerSecurityContext {
    fn convert(self) -> plain::LinuxContainerSecurityContext {
        plain::LinuxContainerSecurityContext {
            capabilities: self.capabilities.map(Convert::convert),
            privileged: self.privileged,
            namespace_options: self.namespace_options.map(Convert::convert),
            selinux_options: self.selinux_options.map(Convert::convert),
            run_as_user: self.run_as_user.map(|v| v.value),
            run_as_group: self.run_as_group.map(|v| v.value),
            run_as_username: self.run_as_username,
            readonly_rootfs: self.readonly_rootfs,
            supplemental_groups: self.supplemental_groups,
            supplemental_groups_policy: known::<wire::SupplementalGroupsPolicy>(
                self.supplemental_groups_policy,
            )
            .convert(),
            no_new_privs: self.no_new_privs,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            seccomp: self.seccomp.map(Convert::convert),
            apparmor: self.apparmor.map(Convert::convert),
        }
    }
}

impl Convert<wire::LinuxContainerSecurityContext> for plain::LinuxContainerSecurityContext {
    fn convert(self) -> wire::LinuxContainerSecurityContext {
        wire::LinuxContainerSecurityContext {
            capabilities: self.capabilities.map(Convert::convert),
            privileged: self.privileged,
            namespace_options: self.namespace_options.map(Convert::convert),
            selinux_options: self.selinux_options.map(Convert::convert),
            run_as_user: self.run_as_user.map(|value| wire::Int64Value { value }),
            run_as_group: self.run_as_group.map(|value| wire::Int64Value { value }),
            run_as_username: self.run_as_username,
            readonly_rootfs: self.readonly_rootfs,
            supplemental_groups: self.supplemental_groups,
            supplemental_groups_policy: Convert::<wire::SupplementalGroupsPolicy>::convert(
                self.supplemental_groups_policy,
            )
            .into(),
            no_new_privs: self.no_new_privs,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            seccomp: self.seccomp.map(Convert::convert),
            apparmor: self.apparmor.map(Convert::convert),
            ..Default::default()
        }
    }
}
convert_enum!(wire::SupplementalGroupsPolicy => plain::SupplementalGroupsPolicy { Merge => Merge, Strict => Strict });

impl Convert<plain::LinuxContainerUser> for wire::LinuxContainerUser {
    fn convert(self) -> plain::LinuxContainerUser {
        plain::LinuxContainerUser {
            uid: self.uid,
            gid: self.gid,
            supplemental_groups: self.supplemental_groups,
        }
    }
}

impl Convert<wire::LinuxContainerUser> for plain::LinuxContainerUser {
    fn convert(self) -> wire::LinuxContainerUser {
        wire::LinuxContainerUser {
            uid: self.uid,
            gid: self.gid,
            supplemental_groups: self.supplemental_groups,
        }
    }
}

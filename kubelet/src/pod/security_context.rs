//! Who a container runs as and what it may do: the container's word over the pod's.
//!
//! Source: Kubernetes' `securitycontext/util.go` and `kuberuntime/security_context.go`.

use std::path::Path;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, PodSpec, SELinuxOptions, SeccompProfile};
use wherry_runtimes::{
    Capability, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    ProfileType, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy,
};

use crate::kubelet::format_pod;

/// The user that an image names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// Number, when it names one.
    pub uid: Option<i64>,
    /// Name, when it names one that is no number.
    pub username: String,
}

/// The namespaces that a pod shares with its node, and among its containers.
pub fn namespaces(spec: &PodSpec) -> NamespaceOption {
    let mode =
        |shared: Option<bool>| if shared == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption {
        network: mode(spec.host_network),
        pid: match (spec.host_pid, spec.share_process_namespace) {
            (Some(true), _) => NamespaceMode::Node,
            (_, Some(true)) => NamespaceMode::Pod,
            _ => NamespaceMode::Container,
        },
        ipc: mode(spec.host_ipc),
        ..NamespaceOption::default()
    }
}

/// Isolation of a pod's sandbox.
pub fn sandbox_security_context(spec: &PodSpec) -> LinuxSandboxSecurityContext {
    let security = spec.security_context.as_ref();
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        selinux_options: security.and_then(|s| s.se_linux_options.as_ref()).map(selinux),
        run_as_user: security.and_then(|s| s.run_as_user),
        run_as_group: security.and_then(|s| s.run_as_group),
        supplemental_groups: supplemental_groups(spec),
        supplemental_groups_policy: groups_policy(spec),
        privileged: all_containers(spec)
            .any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false)),
        // What holds the sandbox open needs no more, whatever its containers are given.
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault,
            ..SecurityProfile::default()
        }),
        ..LinuxSandboxSecurityContext::default()
    }
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// Isolation and identity of a container. `seccomp_root` is where profiles of type Localhost are.
pub fn container_security_context(
    spec: &PodSpec,
    container: &Container,
    user: &ImageUser,
    seccomp_root: &Path,
) -> LinuxContainerSecurityContext {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let privileged = own.and_then(|s| s.privileged).unwrap_or(false);
    let capabilities = own.and_then(|s| s.capabilities.as_ref()).map(|c| Capability {
        add_capabilities: c.add.clone().unwrap_or_default(),
        drop_capabilities: c.drop.clone().unwrap_or_default(),
        ..Capability::default()
    });
    let seccomp_profile =
        own.and_then(|s| s.seccomp_profile.as_ref()).or(pod.and_then(|s| s.seccomp_profile.as_ref()));
    let app_armor =
        own.and_then(|s| s.app_armor_profile.as_ref()).or(pod.and_then(|s| s.app_armor_profile.as_ref()));
    let se_linux =
        own.and_then(|s| s.se_linux_options.as_ref()).or(pod.and_then(|s| s.se_linux_options.as_ref()));
    let is_unmasked = own.and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked");
    let hidden = |paths: &[&str]| -> Vec<String> {
        if privileged || is_unmasked {
            Vec::new()
        } else {
            paths.iter().map(|&path| path.to_owned()).collect()
        }
    };
    let run_as_user = run_as_user(spec, container);
    LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces(spec)),
        selinux_options: se_linux.map(selinux),
        run_as_user: run_as_user.or(user.uid),
        run_as_username: if run_as_user.is_none() { user.username.clone() } else { String::new() },
        run_as_group: own.and_then(|s| s.run_as_group).or(pod.and_then(|s| s.run_as_group)),
        readonly_rootfs: own.and_then(|s| s.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: supplemental_groups(spec),
        supplemental_groups_policy: groups_policy(spec),
        no_new_privs: own.and_then(|s| s.allow_privilege_escalation) == Some(false),
        masked_paths: hidden(&MASKED_PATHS),
        readonly_paths: hidden(&READONLY_PATHS),
        seccomp: Some(seccomp(seccomp_profile.filter(|_| !privileged), seccomp_root)),
        apparmor: app_armor.map(apparmor),
    }
}

fn run_as_user(spec: &PodSpec, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|s| s.run_as_user);
    own.or(spec.security_context.as_ref().and_then(|s| s.run_as_user))
}

/// Refuses a container that must not run as root and would, or might.
///
/// # Errors
/// The text of a `CreateContainerConfigError`.
pub fn verify_run_as_non_root(pod: &Pod, container: &Container, user: &ImageUser) -> Result<(), String> {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let own = container.security_context.as_ref().and_then(|s| s.run_as_non_root);
    let wanted = own.or(spec.security_context.as_ref().and_then(|s| s.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let (pod, name) = (format_pod(pod), &container.name);
    match run_as_user(spec, container) {
        Some(0) => {
            return Err(format!(
                "container's runAsUser breaks non-root policy (pod: {pod:?}, container: {name})"
            ));
        }
        Some(_) => return Ok(()),
        None => {}
    }
    match (user.uid, user.username.as_str()) {
        (Some(0), _) => Err(format!(
            "container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {name})"
        )),
        (None, username) if !username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({username}), cannot verify user is non-root (pod: {pod:?}, container: {name})"
        )),
        _ => Ok(()),
    }
}

/// Groups of every process of the pod beside its own.
pub fn supplemental_groups(spec: &PodSpec) -> Vec<i64> {
    let security = spec.security_context.as_ref();
    let mut groups = security.and_then(|s| s.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(security.and_then(|s| s.fs_group));
    groups
}

fn groups_policy(spec: &PodSpec) -> SupplementalGroupsPolicy {
    match spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref()) {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

fn seccomp(profile: Option<&SeccompProfile>, root: &Path) -> SecurityProfile {
    let profile_type = match profile.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = match (profile_type, profile.and_then(|p| p.localhost_profile.as_deref())) {
        (ProfileType::Localhost, Some(file)) => root.join(file).to_string_lossy().into_owned(),
        _ => String::new(),
    };
    SecurityProfile { profile_type, localhost_ref }
}

fn apparmor(profile: &AppArmorProfile) -> SecurityProfile {
    SecurityProfile {
        profile_type: match profile.type_.as_str() {
            "Unconfined" => ProfileType::Unconfined,
            "Localhost" => ProfileType::Localhost,
            _ => ProfileType::RuntimeDefault,
        },
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

/// Hidden from containers. Source: Kubernetes' default proc mount.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Read only in containers. Source: Kubernetes' default proc mount.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(pod: Value, container: Value) -> PodSpec {
        let containers = json!([{"name": "c", "securityContext": container}]);
        serde_json::from_value(json!({"securityContext": pod, "containers": containers})).unwrap()
    }

    fn context(pod: Value, container: Value) -> LinuxContainerSecurityContext {
        let spec = spec(pod, container);
        let user = ImageUser { uid: Some(7), username: String::new() };
        container_security_context(&spec, &spec.containers[0], &user, Path::new("/seccomp"))
    }

    #[test]
    fn the_container_says_who_it_runs_as_then_the_pod_then_the_image() {
        for (pod, container, expected) in [
            (json!({}), json!({}), (Some(7), None)),
            (json!({"runAsUser": 5, "runAsGroup": 6}), json!({}), (Some(5), Some(6))),
            (json!({"runAsUser": 5, "runAsGroup": 6}), json!({"runAsUser": 0}), (Some(0), Some(6))),
            (json!({}), json!({"runAsGroup": 9}), (Some(7), Some(9))),
        ] {
            let context = context(pod.clone(), container.clone());
            assert_eq!((context.run_as_user, context.run_as_group), expected, "{pod} {container}");
        }
    }

    #[test]
    fn profiles_come_from_the_container_else_from_the_pod() {
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
        let default = json!({"seccompProfile": {"type": "RuntimeDefault"},
            "appArmorProfile": {"type": "Localhost", "localhostProfile": "strict"}});
        let of = |pod: &Value, container: &Value| context(pod.clone(), container.clone()).seccomp.unwrap();
        assert_eq!(of(&json!({}), &json!({})).profile_type, ProfileType::Unconfined);
        assert_eq!(of(&default, &json!({})).profile_type, ProfileType::RuntimeDefault);
        assert_eq!(of(&default, &local).localhost_ref, "/seccomp/a/b.json");
        assert_eq!(of(&default, &json!({"privileged": true})).profile_type, ProfileType::Unconfined);
        let apparmor = context(default, json!({})).apparmor.unwrap();
        assert_eq!(
            (apparmor.profile_type, apparmor.localhost_ref.as_str()),
            (ProfileType::Localhost, "strict")
        );
        assert_eq!(context(json!({}), json!({})).apparmor, None);
    }

    #[test]
    fn what_is_hidden_is_shown_to_privileged_and_unmasked_containers_only() {
        let count = |container: Value| {
            let context = context(json!({}), container);
            (context.masked_paths.len(), context.readonly_paths.len())
        };
        assert_eq!(count(json!({})), (12, 5));
        assert_eq!(count(json!({"procMount": "Default"})), (12, 5));
        assert_eq!(count(json!({"procMount": "Unmasked"})), (0, 0));
        assert_eq!(count(json!({"privileged": true})), (0, 0));
    }

    #[test]
    fn capabilities_groups_and_labels_are_handed_on() {
        let context = context(
            json!({"supplementalGroups": [1, 2], "fsGroup": 3, "supplementalGroupsPolicy": "Strict",
                "seLinuxOptions": {"level": "s0"}}),
            json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true}),
        );
        let capabilities = context.capabilities.unwrap();
        assert_eq!(
            (capabilities.add_capabilities, capabilities.drop_capabilities),
            (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()])
        );
        assert_eq!(context.supplemental_groups, [1, 2, 3]);
        assert_eq!(context.supplemental_groups_policy, SupplementalGroupsPolicy::Strict);
        assert_eq!(context.selinux_options.unwrap().level, "s0");
        assert!(context.no_new_privs && context.readonly_rootfs && !context.privileged);
    }

    #[test]
    fn a_container_that_must_not_be_root_is_refused_in_kubernetes_words() {
        let image = |uid: Option<i64>, username: &str| ImageUser { uid, username: username.to_owned() };
        let root = "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)";
        let name = "container has runAsNonRoot and image has non-numeric user (nobody), cannot verify user is non-root (pod: \"p_n(u)\", container: c)";
        let policy = "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)";
        let must = json!({"runAsNonRoot": true});
        for (pod, container, user, expected) in [
            (json!({}), json!({}), image(Some(0), ""), None),
            (must.clone(), json!({}), image(Some(0), ""), Some(root)),
            (must.clone(), json!({}), image(None, "nobody"), Some(name)),
            (must.clone(), json!({}), image(Some(5), ""), None),
            (must.clone(), json!({}), image(None, ""), None),
            (must.clone(), json!({"runAsNonRoot": false}), image(Some(0), ""), None),
            (must.clone(), json!({"runAsUser": 0}), image(Some(5), ""), Some(policy)),
            (must, json!({"runAsUser": 1}), image(Some(0), ""), None),
        ] {
            let pod = Pod {
                metadata: serde_json::from_value(json!({"name": "p", "namespace": "n", "uid": "u"})).unwrap(),
                spec: Some(spec(pod, container.clone())),
                status: None,
            };
            let container = &pod.spec.as_ref().unwrap().containers[0];
            assert_eq!(verify_run_as_non_root(&pod, container, &user).err().as_deref(), expected);
        }
    }

    #[test]
    fn a_sandbox_shares_what_the_pod_asks_for() {
        let spec: PodSpec =
            serde_json::from_value(json!({"hostNetwork": true, "shareProcessNamespace": true,
            "containers": [{"name": "a", "securityContext": {"privileged": true}}]}))
            .unwrap();
        let context = sandbox_security_context(&spec);
        let shared = context.namespace_options.unwrap();
        assert_eq!(
            (shared.network, shared.pid, shared.ipc),
            (NamespaceMode::Node, NamespaceMode::Pod, NamespaceMode::Pod)
        );
        assert!(context.privileged);
        assert_eq!(context.seccomp.unwrap().profile_type, ProfileType::RuntimeDefault);
    }
}

//! What a pod asks for and its runtime, or this node, cannot give: refused where the pod would be less safe or would not
//! work without it, else reported.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, SecurityContext};

use super::admission::Refusal;
use super::sysctls;
use crate::runtimes::RuntimeKind;

/// Reason of the event, and of a refused pod's end.
pub const REASON: &str = "UnsupportedField";

/// What the node's kernel has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kernel {
    /// AppArmor is enabled.
    pub has_app_armor: bool,
    /// SELinux is enabled.
    pub has_selinux: bool,
}

impl Kernel {
    /// Asks the kernel. Blocking.
    pub fn measure() -> Self {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            has_app_armor: enabled.is_ok_and(|text| text.starts_with('Y')),
            has_selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

/// What a pod's runtime is, as far as fields depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// What it runs.
    pub kind: RuntimeKind,
    /// It leaves out the groups of the image where a pod asks for that.
    pub has_strict_groups: bool,
}

/// What has to be said about a pod before it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The pod cannot run here.
    pub refusal: Option<Refusal>,
    /// Fields that have no effect.
    pub without_effect: Vec<String>,
}

/// Looks through a pod's fields.
pub fn findings(pod: &Pod, runtime: Abilities, kernel: Kernel) -> Findings {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    if let Some(text) = sysctls::forbidden(spec) {
        return refused("SysctlForbidden", text);
    }
    if spec.host_users == Some(false) {
        return refused(REASON, "spec.hostUsers: this node maps no users".to_owned());
    }
    match runtime.kind {
        RuntimeKind::Linux if wants_strict_groups(spec) && !runtime.has_strict_groups => refused(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node".to_owned(),
        ),
        RuntimeKind::Linux => linux(spec, kernel),
        RuntimeKind::Wasm => wasm(spec),
    }
}

/// Whether the pod's processes are to have the groups that it names and no others.
pub fn wants_strict_groups(spec: &PodSpec) -> bool {
    spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref()) == Some("Strict")
}

fn refused(reason: &str, text: String) -> Findings {
    let refusal = Refusal { reason: reason.to_owned(), message: format!("Pod was rejected: {text}") };
    Findings { refusal: Some(refusal), without_effect: Vec::new() }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|c| (format!("spec.initContainers[{}]", c.name), c));
    init.chain(spec.containers.iter().map(|c| (format!("spec.containers[{}]", c.name), c)))
}

fn linux(spec: &PodSpec, kernel: Kernel) -> Findings {
    let pod = spec.security_context.as_ref();
    let wants_app_armor = containers(spec).any(|(_, container)| {
        let own = container.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
        let profile = own.or(pod.and_then(|s| s.app_armor_profile.as_ref()));
        profile.is_some_and(|profile| profile.type_ != "Unconfined")
    });
    if wants_app_armor && !kernel.has_app_armor {
        return refused(
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned(),
        );
    }
    let mut without_effect = Vec::new();
    if !kernel.has_selinux {
        if pod.is_some_and(|s| s.se_linux_options.is_some()) {
            without_effect.push("spec.securityContext.seLinuxOptions".to_owned());
        }
        for (path, container) in containers(spec) {
            if container.security_context.as_ref().is_some_and(|s| s.se_linux_options.is_some()) {
                without_effect.push(format!("{path}.securityContext.seLinuxOptions"));
            }
        }
    }
    Findings { refusal: None, without_effect }
}

/// A guest has no kernel of its own to be given things by: what would widen its rights, or narrow them in a way that only
/// the kernel can, is refused. What it satisfies by its nature (no root, no capabilities, nothing to escalate) is taken.
fn wasm(spec: &PodSpec) -> Findings {
    let mut refused_fields = Vec::new();
    let mut without_effect = Vec::new();
    let mut refuse = |is_set: bool, field: String| {
        if is_set {
            refused_fields.push(field);
        }
    };
    let mut ignore = |is_set: bool, field: String| {
        if is_set {
            without_effect.push(field);
        }
    };
    refuse(spec.host_pid == Some(true), "spec.hostPID".to_owned());
    refuse(spec.host_ipc == Some(true), "spec.hostIPC".to_owned());
    ignore(spec.share_process_namespace == Some(true), "spec.shareProcessNamespace".to_owned());
    if let Some(security) = &spec.security_context {
        let at = |field: &str| format!("spec.securityContext.{field}");
        refuse(security.sysctls.as_ref().is_some_and(|s| !s.is_empty()), at("sysctls"));
        refuse(
            security.seccomp_profile.as_ref().is_some_and(|p| p.type_ == "Localhost"),
            at("seccompProfile"),
        );
        refuse(
            security.app_armor_profile.as_ref().is_some_and(|p| p.type_ == "Localhost"),
            at("appArmorProfile"),
        );
        ignore(security.run_as_user.is_some(), at("runAsUser"));
        ignore(security.run_as_group.is_some(), at("runAsGroup"));
        ignore(
            security.supplemental_groups.as_ref().is_some_and(|g| !g.is_empty()),
            at("supplementalGroups"),
        );
        ignore(security.se_linux_options.is_some(), at("seLinuxOptions"));
    }
    for (path, container) in containers(spec) {
        let (refused_here, ignored_here) = guest_fields(&path, container);
        refused_fields.extend(refused_here);
        without_effect.extend(ignored_here);
    }
    if refused_fields.is_empty() {
        return Findings { refusal: None, without_effect };
    }
    refused(REASON, format!("a WebAssembly guest cannot have {}", refused_fields.join(", ")))
}

/// Of one guest, ephemeral or not: fields that it cannot have, and those that have no effect.
pub fn guest_fields_of(pod: &Pod, container: &Container) -> (Vec<String>, Vec<String>) {
    let name = &container.name;
    let spec = pod.spec.as_ref();
    let is_init = spec.is_some_and(|s| s.init_containers.iter().flatten().any(|c| &c.name == name));
    let list = match () {
        () if is_init => "initContainers",
        () if super::ephemeral::is_ephemeral(pod, name) => "ephemeralContainers",
        () => "containers",
    };
    let path = format!("spec.{list}[{name}]");
    let (refused, mut without_effect) = guest_fields(&path, container);
    if super::ephemeral::target_name(pod, name).is_some() {
        without_effect.push(format!("{path}.targetContainerName"));
    }
    (refused, without_effect)
}

/// A container's fields that a guest cannot have, and those that have no effect on one.
fn guest_fields(path: &str, container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut refused_fields, mut without_effect) = (Vec::new(), Vec::new());
    let mut refuse = |is_set: bool, field: String| {
        if is_set {
            refused_fields.push(field);
        }
    };
    let mut ignore = |is_set: bool, field: String| {
        if is_set {
            without_effect.push(field);
        }
    };
    refuse(container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()), format!("{path}.volumeDevices"));
    let empty = SecurityContext::default();
    let security = container.security_context.as_ref().unwrap_or(&empty);
    let at = |field: &str| format!("{path}.securityContext.{field}");
    refuse(security.privileged == Some(true), at("privileged"));
    let added = security.capabilities.as_ref().and_then(|c| c.add.as_ref());
    refuse(added.is_some_and(|add| !add.is_empty()), at("capabilities.add"));
    refuse(security.proc_mount.as_deref() == Some("Unmasked"), at("procMount"));
    refuse(security.seccomp_profile.as_ref().is_some_and(|p| p.type_ == "Localhost"), at("seccompProfile"));
    refuse(
        security.app_armor_profile.as_ref().is_some_and(|p| p.type_ == "Localhost"),
        at("appArmorProfile"),
    );
    ignore(security.run_as_user.is_some(), at("runAsUser"));
    ignore(security.run_as_group.is_some(), at("runAsGroup"));
    ignore(security.se_linux_options.is_some(), at("seLinuxOptions"));
    (refused_fields, without_effect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn look(spec: Value, kind: RuntimeKind) -> (Option<String>, Vec<String>) {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        let pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let runtime = Abilities { kind, has_strict_groups: false };
        let found = findings(&pod, runtime, Kernel::default());
        (found.refusal.map(|r| format!("{}: {}", r.reason, r.message)), found.without_effect)
    }

    #[test]
    fn a_guest_takes_the_restricted_profile_as_it_is() {
        let spec = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}],
        });
        assert_eq!(look(spec, RuntimeKind::Wasm), (None, vec![]));
    }

    #[test]
    fn what_a_guest_cannot_have_is_refused_or_reported() {
        let with = |security: Value| json!({"containers": [{"name": "c", "securityContext": security}]});
        for (spec, expected) in [
            (with(json!({"privileged": true})), "spec.containers[c].securityContext.privileged"),
            (
                with(json!({"capabilities": {"add": ["NET_RAW"]}})),
                "spec.containers[c].securityContext.capabilities.add",
            ),
            (
                with(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}})),
                "spec.containers[c].securityContext.seccompProfile",
            ),
            (json!({"hostPID": true}), "spec.hostPID"),
            (json!({"hostIPC": true}), "spec.hostIPC"),
        ] {
            let (refusal, _) = look(spec.clone(), RuntimeKind::Wasm);
            let expected =
                format!("UnsupportedField: Pod was rejected: a WebAssembly guest cannot have {expected}");
            assert_eq!(refusal, Some(expected), "{spec}");
            assert_eq!(look(spec.clone(), RuntimeKind::Linux).0, None, "{spec}");
        }
        let spec = json!({"securityContext": {"runAsUser": 1000}, "shareProcessNamespace": true});
        assert_eq!(
            look(spec, RuntimeKind::Wasm),
            (
                None,
                vec!["spec.shareProcessNamespace".to_owned(), "spec.securityContext.runAsUser".to_owned()]
            )
        );
    }

    #[test]
    fn what_the_nodes_kernel_lacks_is_refused_or_reported() {
        let sysctl = json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
        assert_eq!(
            look(sysctl, RuntimeKind::Linux).0.as_deref(),
            Some("SysctlForbidden: Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted")
        );
        let armor = json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}});
        assert_eq!(
            look(armor, RuntimeKind::Linux).0.as_deref(),
            Some("AppArmor: Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host")
        );
        let labelled = json!({"securityContext": {"seLinuxOptions": {"level": "s0"}}});
        assert_eq!(
            look(labelled, RuntimeKind::Linux),
            (None, vec!["spec.securityContext.seLinuxOptions".to_owned()])
        );
        assert!(look(json!({"hostUsers": false}), RuntimeKind::Linux).0.is_some());
        let strict = json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}});
        assert_eq!(
            look(strict.clone(), RuntimeKind::Linux).0.as_deref(),
            Some(
                "SupplementalGroupsPolicyNotSupported: Pod was rejected: SupplementalGroupsPolicy=Strict is not supported in this node"
            )
        );
        // A guest has no groups at all.
        assert_eq!(look(strict, RuntimeKind::Wasm).0, None);
    }
}

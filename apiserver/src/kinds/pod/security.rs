//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
    WindowsSecurityContextOptions,
};
use serde_json::json;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::internal_form;
use crate::kinds::fields::{dns_subdomain, invalid_printed, local_path};

/// Bytes of a sysctl's name.
const MAX_SYSCTL_BYTES: usize = 253;
/// What a sysctl's name must look like, as Kubernetes prints it.
const SYSCTL_FORMAT: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// The security context of a pod.
pub(crate) fn pod_context(context: &PodSecurityContext, spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut id = |field: &str, value: Option<i64>| {
        for problem in value.iter().flat_map(|id| names::user_id(*id)) {
            errors.push(Error::invalid(&path.child(field), json!(value), &problem));
        }
    };
    id("fsGroup", context.fs_group);
    id("runAsUser", context.run_as_user);
    id("runAsGroup", context.run_as_group);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        for problem in names::user_id(*group) {
            errors.push(Error::invalid(&path.child("supplementalGroups").index(i), *group, &problem));
        }
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    errors.extend(sysctls(context, spec, &path.child("sysctls")));
    let change = context.fs_group_change_policy.as_deref();
    errors.extend(one_of(change, &["Always", "OnRootMismatch"], &path.child("fsGroupChangePolicy")));
    errors.extend(seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile")));
    errors.extend(windows(context.windows_options.as_ref(), &path.child("windowsOptions")));
    errors.extend(app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile")));
    let policy = context.supplemental_groups_policy.as_deref();
    errors.extend(one_of(policy, &["Merge", "Strict"], &path.child("supplementalGroupsPolicy")));
    let change = context.se_linux_change_policy.as_deref();
    errors.extend(one_of(change, &["MountOption", "Recursive"], &path.child("seLinuxChangePolicy")));
    errors
}

fn one_of(value: Option<&str>, supported: &[&str], path: &Path) -> ErrorList {
    match value {
        Some(value) if !supported.contains(&value) => vec![Error::not_supported(path, value, supported)],
        _ => ErrorList::new(),
    }
}

fn sysctls(context: &PodSecurityContext, spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = path.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !is_sysctl_name(name) {
            let detail =
                format!("must have at most {MAX_SYSCTL_BYTES} characters and match regex {SYSCTL_FORMAT}");
            errors.push(Error::invalid(&path, name, &detail));
        } else if seen.contains(name) {
            errors.push(Error::duplicate(&path, name));
        }
        let dotted = name.replace('/', ".");
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.push(Error::invalid(&path, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc == Some(true) && is_ipc_sysctl(&dotted) {
            errors.push(Error::invalid(&path, name, "may not be specified when 'hostIPC' is true"));
        }
        seen.insert(name);
    }
    errors
}

fn is_ipc_sysctl(name: &str) -> bool {
    name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

/// Segments of lower-case letters, digits, `-` and `_`, divided by dots or slashes.
fn is_sysctl_name(name: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_SYSCTL_BYTES
        && name.split(['.', '/']).all(|segment| {
            let bytes = segment.as_bytes();
            bytes.first().is_some_and(alphanumeric)
                && bytes.last().is_some_and(alphanumeric)
                && bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'_'))
        })
}

/// The security context of a container.
pub(crate) fn container_context(context: &SecurityContext, host_users: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (field, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        for problem in id.iter().flat_map(|id| names::user_id(*id)) {
            errors.push(Error::invalid(&path.child(field), json!(id), &problem));
        }
    }
    if let Some(mount) = context.proc_mount.as_deref() {
        errors.extend(one_of(Some(mount), &["Default", "Unmasked"], &path.child("procMount")));
        if host_users && mount == "Unmasked" {
            let detail = "`hostUsers` must be false to use `Unmasked`";
            errors.push(Error::invalid(&path.child("procMount"), mount, detail));
        }
    }
    errors.extend(seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile")));
    if context.allow_privilege_escalation == Some(false) {
        let mut refuse = |detail: &str| {
            let printed = internal_form::print("SecurityContext", &json!(context));
            errors.push(invalid_printed(path, &printed, detail));
        };
        if context.privileged == Some(true) {
            refuse("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref());
        for _ in added.unwrap_or_default().iter().filter(|capability| *capability == "CAP_SYS_ADMIN") {
            refuse("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    errors.extend(windows(context.windows_options.as_ref(), &path.child("windowsOptions")));
    errors.extend(app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile")));
    errors
}

/// The profile types of seccomp and AppArmor.
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(profile: Option<&SeccompProfile>, path: &Path) -> ErrorList {
    let Some(profile) = profile else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    let kind = profile.type_.as_str();
    if kind.is_empty() {
        errors.push(Error::required(&path.child("type"), "type is required when seccompProfile is set"));
    } else {
        errors.extend(one_of(Some(kind), PROFILE_TYPES, &path.child("type")));
    }
    let local = path.child("localhostProfile");
    match (kind, profile.localhost_profile.as_deref()) {
        ("Localhost", None) => {
            errors.push(Error::required(&local, "must be set when seccomp type is Localhost"))
        }
        ("Localhost", Some(file)) => errors.extend(local_path(file, &local)),
        (_, Some(_)) => {
            let printed = internal_form::print("SeccompProfile", &json!(profile));
            errors.push(invalid_printed(&local, &printed, "can only be set when seccomp type is Localhost"));
        }
        _ => {}
    }
    errors
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path) -> ErrorList {
    /// Bytes: the longest path minus one.
    const MAX_PROFILE_BYTES: usize = 4095;
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    let local = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errors.push(Error::required(&local, MISSING)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(Error::invalid(&local, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(Error::required(&local, MISSING));
            }
            if name.len() > MAX_PROFILE_BYTES {
                errors.push(Error::too_long(&local, MAX_PROFILE_BYTES));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(Error::invalid(&local, name, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(Error::required(&path.child("type"), "type is required when appArmorProfile is set"))
        }
        (other, _) => errors.push(Error::not_supported(&path.child("type"), other, PROFILE_TYPES)),
    }
    errors
}

fn windows(options: Option<&WindowsSecurityContextOptions>, path: &Path) -> ErrorList {
    /// KiB of a credential spec.
    const MAX_SPEC_KIB: usize = 64;
    let Some(options) = options else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    if let Some(name) = options.gmsa_credential_spec_name.as_deref() {
        errors.extend(dns_subdomain(name, &path.child("gmsaCredentialSpecName")));
    }
    if let Some(spec) = options.gmsa_credential_spec.as_deref() {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(Error::invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > MAX_SPEC_KIB * 1024 {
            let detail = format!("gmsaCredentialSpec size must be under {MAX_SPEC_KIB} KiB");
            errors.push(Error::invalid(&path, spec, &detail));
        }
    }
    if let Some(name) = options.run_as_user_name.as_deref() {
        let path = path.child("runAsUserName");
        errors.extend(windows_user(name).iter().map(|problem| Error::invalid(&path, name, problem)));
    }
    errors
}

/// What is wrong with `DOMAIN\user`.
fn windows_user(name: &str) -> Vec<String> {
    /// Characters of a domain, exclusive.
    const MAX_DOMAIN: usize = 256;
    /// Characters of a user.
    const MAX_USER: usize = 104;
    let problem = |text: &str| vec![format!("runAsUserName{text}")];
    if name.is_empty() {
        return problem(" cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return problem(" cannot contain control characters");
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return problem(" cannot contain more than one backslash"),
    };
    let mut problems = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= MAX_DOMAIN {
            problems.extend(problem(&format!("'s Domain length must be under {MAX_DOMAIN} characters")));
        }
        if !is_net_bios(domain) && !is_windows_dns(domain) {
            problems.extend(problem("'s Domain doesn't match the NetBios nor the DNS format"));
        }
    }
    if user.is_empty() {
        problems.extend(problem("'s User cannot be empty"));
    } else if user.len() > MAX_USER {
        problems.extend(problem(&format!("'s User length must not be longer than {MAX_USER} characters")));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        problems.extend(problem("'s User cannot contain only periods or spaces"));
    }
    const FORBIDDEN: &str = r#""/\:;|=,+*?<>@[]"#;
    if user.contains(|c| FORBIDDEN.contains(c)) {
        problems.extend(problem(&format!("'s User cannot contain the following characters: {FORBIDDEN}")));
    }
    problems
}

fn is_net_bios(domain: &str) -> bool {
    let forbidden = |c: char| r#"\/:*?"<>|"#.contains(c);
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && !domain.contains(forbidden)
}

fn is_windows_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        label.len() <= 63
            && alphanumeric(label.chars().next())
            && alphanumeric(label.chars().last())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}

/// HostProcess containers of Windows: all or none, and on the host's network.
pub(crate) fn host_process(spec: &PodSpec, path: &Path) -> ErrorList {
    let wanted =
        |options: Option<&WindowsSecurityContextOptions>| options.and_then(|options| options.host_process);
    let of_pod = wanted(spec.security_context.as_ref().and_then(|context| context.windows_options.as_ref()));
    let mut errors = ErrorList::new();
    let (mut containers, mut host_process) = (0, 0);
    for (context, path) in super::spec::security_contexts(spec, path) {
        containers += 1;
        let own = wanted(context.and_then(|context| context.windows_options.as_ref()));
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let path = path.child("securityContext").child("windowsOptions").child("hostProcess");
            let detail =
                format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.push(Error::invalid(&path, own, &detail));
        }
        if own.or(of_pod) == Some(true) {
            host_process += 1;
        }
    }
    if host_process > 0 {
        if host_process != containers {
            let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
            errors.push(Error::invalid(path, "", detail));
        }
        if spec.host_network != Some(true) {
            let detail = "hostNetwork must be true if pod contains any hostProcess containers";
            errors.push(Error::invalid(&path.child("hostNetwork"), false, detail));
        }
    }
    errors
}

/// What a pod may not say about the host when it does not use the host's users.
pub(crate) fn host_users(spec: &PodSpec, path: &Path) -> ErrorList {
    if spec.host_users != Some(false) {
        return ErrorList::new();
    }
    [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
        .into_iter()
        .filter(|(_, value)| *value == Some(true))
        .map(|(field, _)| Error::forbidden(&path.child(field), "when `pod.Spec.HostUsers` is false"))
        .collect()
}

/// What a pod of one operating system may not say about another.
pub(crate) fn operating_system(spec: &PodSpec, path: &Path) -> ErrorList {
    let Some(os) = &spec.os else { return ErrorList::new() };
    match os.name.as_str() {
        "" => vec![Error::required(&path.child("os").child("name"), "cannot be empty")],
        "linux" => not_for_linux(spec, path),
        "windows" => not_for_windows(spec, path),
        other => vec![Error::not_supported(&path.child("os"), other, &["linux", "windows"])],
    }
}

fn not_for_linux(spec: &PodSpec, path: &Path) -> ErrorList {
    const TEXT: &str = "windows options cannot be set for a linux pod";
    let forbid = |path: &Path| Error::forbidden(&path.child("securityContext").child("windowsOptions"), TEXT);
    let of_pod = spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some());
    let of_containers = super::spec::security_contexts(spec, path)
        .into_iter()
        .filter(|(context, _)| context.is_some_and(|context| context.windows_options.is_some()))
        .map(|(_, path)| forbid(&path));
    of_pod.then(|| forbid(path)).into_iter().chain(of_containers).collect()
}

fn not_for_windows(spec: &PodSpec, path: &Path) -> ErrorList {
    const TEXT: &str = "cannot be set for a windows pod";
    let mut errors = ErrorList::new();
    let mut forbid = |given: bool, path: Path| {
        if given {
            errors.push(Error::forbidden(&path, TEXT));
        }
    };
    if let Some(context) = &spec.security_context {
        let own = |field: &str| path.child("securityContext").child(field);
        forbid(context.app_armor_profile.is_some(), own("appArmorProfile"));
        forbid(context.se_linux_options.is_some(), own("seLinuxOptions"));
        forbid(spec.host_users.is_some(), path.child("hostUsers"));
        forbid(spec.host_pid == Some(true), path.child("hostPID"));
        forbid(spec.host_ipc == Some(true), path.child("hostIPC"));
        forbid(context.seccomp_profile.is_some(), own("seccompProfile"));
        forbid(context.fs_group.is_some(), own("fsGroup"));
        forbid(context.fs_group_change_policy.is_some(), own("fsGroupChangePolicy"));
        forbid(!context.sysctls.as_deref().unwrap_or_default().is_empty(), own("sysctls"));
        forbid(spec.share_process_namespace.is_some(), path.child("shareProcessNamespace"));
        forbid(context.run_as_user.is_some(), own("runAsUser"));
        forbid(context.run_as_group.is_some(), own("runAsGroup"));
        forbid(context.supplemental_groups.is_some(), own("supplementalGroups"));
        forbid(context.supplemental_groups_policy.is_some(), own("supplementalGroupsPolicy"));
        forbid(context.se_linux_change_policy.is_some(), own("seLinuxChangePolicy"));
    }
    for (context, path) in super::spec::security_contexts(spec, path) {
        let Some(context) = context else { continue };
        let own = |field: &str| path.child("securityContext").child(field);
        forbid(context.app_armor_profile.is_some(), own("appArmorProfile"));
        forbid(context.se_linux_options.is_some(), own("seLinuxOptions"));
        forbid(context.seccomp_profile.is_some(), own("seccompProfile"));
        forbid(context.capabilities.is_some(), own("capabilities"));
        forbid(context.read_only_root_filesystem.is_some(), own("readOnlyRootFilesystem"));
        forbid(context.privileged.is_some(), own("privileged"));
        forbid(context.allow_privilege_escalation.is_some(), own("allowPrivilegeEscalation"));
        forbid(context.proc_mount.is_some(), own("procMount"));
        forbid(context.run_as_user.is_some(), own("runAsUser"));
        forbid(context.run_as_group.is_some(), own("runAsGroup"));
    }
    errors
}

/// The operating system's name, empty if none is given.
pub(crate) fn os_name(spec: &PodSpec) -> &str {
    spec.os.as_ref().map_or("", |os| os.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn sysctls_have_a_form_and_a_namespace() {
        let context: PodSecurityContext = serde_json::from_value(json!({"sysctls": [
            {"name": "kernel.shm_rmid_forced", "value": "0"}, {"name": "Bad", "value": "1"},
            {"name": "kernel.shm_rmid_forced", "value": "1"}, {"name": "net.ipv4.tcp_syncookies", "value": "1"},
        ]}))
        .unwrap();
        let spec = PodSpec { host_network: Some(true), ..PodSpec::default() };
        assert_eq!(
            messages(&pod_context(&context, &spec, &Path::new("c"))),
            [
                r#"c.sysctls[1].name: Invalid value: "Bad": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"#,
                r#"c.sysctls[2].name: Duplicate value: "kernel.shm_rmid_forced""#,
                r#"c.sysctls[3].name: Invalid value: "net.ipv4.tcp_syncookies": may not be specified when 'hostNetwork' is true"#,
            ]
        );
    }

    #[test]
    fn profiles_name_a_file_only_when_it_is_on_the_node() {
        let table = [
            (
                json!({"type": "Localhost"}),
                vec!["p.localhostProfile: Required value: must be set when seccomp type is Localhost"],
            ),
            (
                json!({"type": "RuntimeDefault", "localhostProfile": "a"}),
                vec![
                    r#"p.localhostProfile: Invalid value: {"Type":"RuntimeDefault","LocalhostProfile":"a"}: can only be set when seccomp type is Localhost"#,
                ],
            ),
            (
                json!({"type": "Odd"}),
                vec![
                    r#"p.type: Unsupported value: "Odd": supported values: "Localhost", "RuntimeDefault", "Unconfined""#,
                ],
            ),
        ];
        for (profile, expected) in table {
            let profile: SeccompProfile = serde_json::from_value(profile).unwrap();
            assert_eq!(messages(&seccomp(Some(&profile), &Path::new("p"))), expected);
        }
    }

    #[test]
    fn windows_users_are_checked_part_by_part() {
        assert!(windows_user(r"CONTOSO\ann").is_empty());
        assert_eq!(windows_user(r"a\b\c"), ["runAsUserName cannot contain more than one backslash"]);
        assert_eq!(windows_user("..."), ["runAsUserName's User cannot contain only periods or spaces"]);
    }
}

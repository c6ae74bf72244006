//! Containers: regular, init and ephemeral ones.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerResizePolicy};
use serde_json::json;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::probes::{self, ProbeKind};
use super::resources::{self, ClaimNames, Level};
use super::volumes::Volumes;
use super::{env, security, volume_mounts};
use crate::kinds::fields::{PROTOCOLS, dns_label, invalid_each, port_number, s};

/// What the containers of one pod share.
pub(crate) struct Surroundings<'a> {
    /// The pod's valid volumes.
    pub(crate) volumes: &'a Volumes,
    /// The pod's claims.
    pub(crate) claims: &'a ClaimNames,
    /// The pod's grace period.
    pub(crate) grace_seconds: Option<i64>,
    /// The pod's restart policy.
    pub(crate) restart_policy: &'a str,
    /// Whether the pod uses the host's users.
    pub(crate) host_users: bool,
    /// The pod's operating system, if it names one.
    pub(crate) os: &'a str,
}

/// Whether an init container keeps running beside the pod's containers.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The regular containers.
pub(crate) fn regular(containers: &[Container], around: &Surroundings<'_>, path: &Path) -> ErrorList {
    if containers.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        errors.extend(common(container, around, &path));
        if !names.insert(&container.name) {
            errors.push(Error::duplicate(&path.child("name"), container.name.as_str()));
        }
        errors.extend(running(container, around, &path));
        errors.extend(restart_rules(container, &path));
    }
    errors.extend(host_port_conflicts(containers, path));
    errors
}

/// The init containers.
pub(crate) fn init(
    containers: &[Container],
    regular: &[Container],
    around: &Surroundings<'_>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names: BTreeSet<&String> = regular.iter().map(|container| &container.name).collect();
    for (i, container) in containers.iter().enumerate() {
        let item = path.index(i);
        errors.extend(common(container, around, &item));
        errors.extend(restart_rules(container, &item));
        if names.contains(&container.name) {
            errors.push(Error::duplicate(&item.child("name"), container.name.as_str()));
        } else if !container.name.is_empty() {
            names.insert(&container.name);
        }
        errors.extend(host_port_conflicts(std::slice::from_ref(container), path));
        if is_sidecar(container) {
            errors.extend(running(container, around, &item));
        } else {
            for (field, given) in [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ] {
                if given {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.push(Error::forbidden(&item.child(field), detail));
                }
            }
        }
    }
    errors
}

/// An ephemeral container: what it is, and the container it may look at.
pub(crate) struct Ephemeral<'a> {
    /// The container's fields.
    pub(crate) container: &'a Container,
    /// The container it targets; empty for none.
    pub(crate) target: &'a str,
}

/// The ephemeral containers.
pub(crate) fn ephemeral(
    containers: &[Ephemeral<'_>],
    others: &BTreeSet<&str>,
    around: &Surroundings<'_>,
    path: &Path,
) -> ErrorList {
    const TEXT: &str = "cannot be set for an Ephemeral Container";
    let mut errors = ErrorList::new();
    let mut names = others.clone();
    for (i, Ephemeral { container, target }) in containers.iter().enumerate() {
        let path = path.index(i);
        errors.extend(common(container, around, &path));
        errors.extend(only_for_pod(container, &path));
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), container.name.as_str()));
        }
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&path.child("targetContainerName"), *target));
        }
        let resources = container.resources.as_ref();
        let has_resources =
            resources.is_some_and(|r| r.limits.is_some() || r.requests.is_some() || r.claims.is_some());
        for (field, given) in [
            ("ports", container.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
            ("resources", has_resources),
            ("resizePolicy", container.resize_policy.as_ref().is_some_and(|policy| !policy.is_empty())),
            ("restartPolicy", container.restart_policy.is_some()),
            (
                "restartPolicyRules",
                container.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty()),
            ),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
        ] {
            if given {
                errors.push(Error::forbidden(&path.child(field), TEXT));
            }
        }
        for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let path = path.child("volumeMounts").index(i);
            for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if !s(value).is_empty() {
                    errors.push(Error::forbidden(&path.child(field), TEXT));
                }
            }
        }
    }
    errors
}

/// What only a pod's, not a template's, containers are asked.
pub(crate) fn only_for_pod(container: &Container, path: &Path) -> ErrorList {
    let image = s(&container.image);
    if image.trim() == image {
        ErrorList::new()
    } else {
        vec![Error::invalid(&path.child("image"), image, "must not have leading or trailing whitespace")]
    }
}

/// What containers of every sort have.
fn common(container: &Container, around: &Surroundings<'_>, path: &Path) -> ErrorList {
    const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
    let mut errors = ErrorList::new();
    if container.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        errors.extend(dns_label(&container.name, &path.child("name")));
    }
    if s(&container.image).is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    }
    let policy_path = path.child("terminationMessagePolicy");
    match s(&container.termination_message_policy) {
        "" => errors.push(Error::required(&policy_path, "")),
        policy if !MESSAGE_POLICIES.contains(&policy) => {
            errors.push(Error::not_supported(&policy_path, policy, MESSAGE_POLICIES));
        }
        _ => {}
    }
    errors.extend(ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports")));
    errors.extend(env::variables(container.env.as_deref().unwrap_or_default(), &path.child("env")));
    errors.extend(env::sources(container.env_from.as_deref().unwrap_or_default(), &path.child("envFrom")));
    errors.extend(volume_mounts::mounts(container, around.volumes, &path.child("volumeMounts")));
    errors.extend(volume_mounts::devices(container, around.volumes, &path.child("volumeDevices")));
    errors.extend(pull_policy(s(&container.image_pull_policy), &path.child("imagePullPolicy")));
    if let Some(requirements) = &container.resources {
        let path = path.child("resources");
        errors.extend(resources::requirements(requirements, Level::Container, around.claims, &path));
    }
    let resize = container.resize_policy.as_deref().unwrap_or_default();
    errors.extend(resize_policies(resize, around.restart_policy, &path.child("resizePolicy")));
    if let Some(context) = &container.security_context {
        errors.extend(security::container_context(
            context,
            around.host_users,
            &path.child("securityContext"),
        ));
    }
    errors
}

/// Hooks and probes, of containers that run until the pod ends.
fn running(container: &Container, around: &Surroundings<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(lifecycle) = &container.lifecycle {
        errors.extend(probes::lifecycle(
            lifecycle,
            around.grace_seconds,
            around.os,
            &path.child("lifecycle"),
        ));
    }
    for (kind, probe) in [
        (ProbeKind::Liveness, &container.liveness_probe),
        (ProbeKind::Readiness, &container.readiness_probe),
        (ProbeKind::Startup, &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            errors.extend(probes::probe(probe, kind, around.grace_seconds, &path.child(kind.field())));
        }
    }
    errors
}

/// A container's own restart policy, and its exceptions by exit code.
fn restart_rules(container: &Container, path: &Path) -> ErrorList {
    const POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
    const ACTIONS: &[&str] = &["Restart", "RestartAllContainers"];
    const OPERATORS: &[&str] = &["In", "NotIn"];
    /// Rules of a container; exit codes of a rule.
    const MAX: (usize, usize) = (20, 255);
    let mut errors = ErrorList::new();
    let policy_path = path.child("restartPolicy");
    if let Some(policy) = container.restart_policy.as_deref().filter(|policy| !POLICIES.contains(policy)) {
        errors.push(Error::not_supported(&policy_path, policy, POLICIES));
    }
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let path = path.child("restartPolicyRules");
    if !rules.is_empty() && container.restart_policy.is_none() {
        errors.push(Error::required(&policy_path, "must specify restartPolicy when restart rules are used"));
    }
    if rules.len() > MAX.0 {
        errors.push(Error::too_many(&path, rules.len(), MAX.0));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        if !ACTIONS.contains(&rule.action.as_str()) {
            errors.push(Error::not_supported(&path.child("action"), rule.action.as_str(), ACTIONS));
        }
        let path = path.child("exitCodes");
        let Some(codes) = &rule.exit_codes else {
            errors.push(Error::required(&path, "must be specified"));
            continue;
        };
        if !OPERATORS.contains(&codes.operator.as_str()) {
            errors.push(Error::not_supported(&path.child("operator"), codes.operator.as_str(), OPERATORS));
        }
        let values = codes.values.as_deref().unwrap_or_default();
        if values.is_empty() {
            errors.push(Error::invalid(&path.child("values"), json!(values), "must have at least one value"));
        } else if values.len() > MAX.1 {
            errors.push(Error::too_many(&path.child("values"), values.len(), MAX.1));
        }
    }
    errors
}

fn ports(ports: &[ContainerPort], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = s(&port.name);
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            errors.extend(invalid_each(&path.child("name"), name, problems));
        }
        if port.container_port == 0 {
            errors.push(Error::required(&path.child("containerPort"), ""));
        } else {
            errors.extend(port_number(i64::from(port.container_port), &path.child("containerPort")));
        }
        if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
            errors.extend(port_number(i64::from(host_port), &path.child("hostPort")));
        }
        match s(&port.protocol) {
            "" => errors.push(Error::required(&path.child("protocol"), "")),
            protocol if !PROTOCOLS.contains(&protocol) => {
                errors.push(Error::not_supported(&path.child("protocol"), protocol, PROTOCOLS));
            }
            _ => {}
        }
    }
    errors
}

/// Two containers cannot have the same port of the host.
fn host_port_conflicts(containers: &[Container], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut taken = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|port| *port != 0) else { continue };
            let text = format!("{}/{}/{number}", s(&port.protocol), s(&port.host_ip));
            if taken.contains(&text) {
                let path = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(Error::duplicate(&path, text));
            } else {
                taken.insert(text);
            }
        }
    }
    errors
}

/// When an image is pulled.
pub(crate) fn pull_policy(policy: &str, path: &Path) -> ErrorList {
    const POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
    match policy {
        "" => vec![Error::required(path, "")],
        _ if POLICIES.contains(&policy) => ErrorList::new(),
        _ => vec![Error::not_supported(path, policy, POLICIES)],
    }
}

fn resize_policies(policies: &[ContainerResizePolicy], restart_policy: &str, path: &Path) -> ErrorList {
    const RESOURCES: &[&str] = &["cpu", "memory"];
    const POLICIES: &[&str] = &["NotRequired", "RestartContainer"];
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if !seen.insert(&policy.resource_name) {
            errors.push(Error::duplicate(&path.index(i), policy.resource_name.as_str()));
        }
        for (value, supported) in [(&policy.resource_name, RESOURCES), (&policy.restart_policy, POLICIES)] {
            if value.is_empty() {
                errors.push(Error::required(path, ""));
            } else if !supported.contains(&value.as_str()) {
                errors.push(Error::not_supported(path, value.as_str(), supported));
            }
        }
        if restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path, policy.restart_policy.as_str(), detail));
        }
    }
    errors
}

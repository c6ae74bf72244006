//! The spec of a pod, wherever it stands. Source: `ValidatePodSpec` of `k8s.io/kubernetes/pkg/apis/core/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, HostAlias, PodDNSConfig, PodResourceClaim, PodSpec, SecurityContext,
};
use serde_json::json;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::containers::{self, Ephemeral, Surroundings};
use super::resources::{self, ClaimNames};
use super::{internal_form, scheduling, security, volumes};
use crate::kinds::fields::{
    dns_label, dns_subdomain, invalid_each, invalid_printed, ip, labels, qualified_name, s,
};

/// Where a pod spec stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedding {
    /// In a Pod.
    Pod,
    /// In a template of pods.
    Template,
}

/// What the checks of a pod spec know beside it.
#[derive(Debug, Clone)]
pub(crate) struct Context<'a> {
    /// Where it stands.
    pub(crate) embedding: Embedding,
    /// The pod's name; empty in a template.
    pub(crate) pod_name: &'a str,
}

impl<'a> Context<'a> {
    /// The spec of a pod of that name.
    pub(crate) fn pod(pod_name: &'a str) -> Self {
        Self { embedding: Embedding::Pod, pod_name }
    }

    /// The spec of a template.
    pub(crate) fn template() -> Self {
        Self { embedding: Embedding::Template, pod_name: "" }
    }

    /// Whether the spec stands in a Pod.
    pub(crate) fn is_pod(&self) -> bool {
        self.embedding == Embedding::Pod
    }
}

/// An ephemeral container's fields as those of a container.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// The security contexts of all containers, init containers first, with the containers' paths.
pub(crate) fn security_contexts<'a>(
    spec: &'a PodSpec,
    path: &Path,
) -> Vec<(Option<&'a SecurityContext>, Path)> {
    let of = |field: &'static str| {
        let path = path.child(field);
        move |i: usize| path.index(i)
    };
    let (init, regular, ephemeral) = (of("initContainers"), of("containers"), of("ephemeralContainers"));
    let mut contexts = Vec::new();
    contexts.extend(
        spec.init_containers
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, c)| (c.security_context.as_ref(), init(i))),
    );
    contexts
        .extend(spec.containers.iter().enumerate().map(|(i, c)| (c.security_context.as_ref(), regular(i))));
    let others = spec.ephemeral_containers.iter().flatten().enumerate();
    contexts.extend(others.map(|(i, c)| (c.security_context.as_ref(), ephemeral(i))));
    contexts
}

/// Everything wrong with a pod spec.
pub(crate) fn validate(spec: &PodSpec, context: &Context<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(Error::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let spec_volumes = spec.volumes.as_deref().unwrap_or_default();
    let (volumes, found) = volumes::volumes(spec_volumes, context, &path.child("volumes"));
    errors.extend(found);
    let pod_claims = spec.resource_claims.as_deref().unwrap_or_default();
    errors.extend(resource_claims(pod_claims, &path.child("resourceClaims")));
    let claims: ClaimNames =
        pod_claims.iter().map(|claim| claim.name.clone()).filter(|name| !name.is_empty()).collect();
    errors.extend(all_containers(spec, &volumes, &claims, path));
    errors.extend(resources::pod_level(spec, &claims, &path.child("resources")));
    errors.extend(host_network(spec, context, path));
    errors.extend(one_of(
        s(&spec.restart_policy),
        &["Always", "OnFailure", "Never"],
        &path.child("restartPolicy"),
    ));
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(one_of(s(&spec.dns_policy), &dns_policies, &path.child("dnsPolicy")));
    if let Some(selector) = &spec.node_selector {
        errors.extend(labels(selector, &path.child("nodeSelector")));
    }
    if let Some(security_context) = &spec.security_context {
        errors.extend(security::pod_context(security_context, spec, &path.child("securityContext")));
    }
    if let Some(affinity) = &spec.affinity {
        errors.extend(scheduling::affinity(affinity, &path.child("affinity")));
    }
    errors.extend(dns(spec.dns_config.as_ref(), s(&spec.dns_policy), &path.child("dnsConfig")));
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        errors.extend(qualified_name(&gate.condition_type, &path));
    }
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    errors.extend(scheduling::gates(gates, &path.child("schedulingGates")));
    let spread = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    errors.extend(scheduling::topology_spread(spread, &path.child("topologySpreadConstraints")));
    errors.extend(security::host_process(spec, path));
    errors.extend(security::host_users(spec, path));
    errors.extend(names_of(spec, path));
    if let Some(tolerations) = spec.tolerations.as_deref() {
        errors.extend(scheduling::tolerations(tolerations, &path.child("tolerations")));
    }
    errors.extend(host_aliases(spec.host_aliases.as_deref().unwrap_or_default(), &path.child("hostAliases")));
    for (field, name) in
        [("priorityClassName", &spec.priority_class_name), ("runtimeClassName", &spec.runtime_class_name)]
    {
        if let Some(name) = name.as_deref().filter(|name| field == "runtimeClassName" || !name.is_empty()) {
            errors.extend(dns_subdomain(name, &path.child(field)));
        }
    }
    if let Some(policy) = spec.preemption_policy.as_deref() {
        errors.extend(one_of(policy, &["PreemptLowerPriority", "Never"], &path.child("preemptionPolicy")));
    }
    if let Some(overhead) = &spec.overhead {
        errors.extend(resources::overhead(overhead, &path.child("overhead")));
    }
    errors.extend(security::operating_system(spec, path));
    errors
}

/// A required value of an enumeration.
fn one_of(value: &str, supported: &[&str], path: &Path) -> ErrorList {
    match value {
        "" => vec![Error::required(path, "")],
        _ if supported.contains(&value) => ErrorList::new(),
        _ => vec![Error::not_supported(path, value, supported)],
    }
}

fn all_containers(spec: &PodSpec, volumes: &volumes::Volumes, claims: &ClaimNames, path: &Path) -> ErrorList {
    let around = Surroundings {
        volumes,
        claims,
        grace_seconds: spec.termination_grace_period_seconds,
        restart_policy: s(&spec.restart_policy),
        host_users: spec.host_users != Some(false),
        os: security::os_name(spec),
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let mut errors = containers::regular(&spec.containers, &around, &path.child("containers"));
    errors.extend(containers::init(init, &spec.containers, &around, &path.child("initContainers")));
    let own: Vec<Container> = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    let ephemeral: Vec<Ephemeral<'_>> = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .zip(&own)
        .map(|(ephemeral, container)| Ephemeral { container, target: s(&ephemeral.target_container_name) })
        .collect();
    let others: BTreeSet<&str> =
        spec.containers.iter().chain(init).map(|container| container.name.as_str()).collect();
    errors.extend(containers::ephemeral(&ephemeral, &others, &around, &path.child("ephemeralContainers")));
    errors
}

fn resource_claims(claims: &[PodResourceClaim], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        if claim.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if names.insert(&claim.name) {
            errors.extend(dns_label(&claim.name, &path.child("name")));
        } else {
            errors.push(Error::duplicate(&path.child("name"), claim.name.as_str()));
        }
        let (direct, template) = (&claim.resource_claim_name, &claim.resource_claim_template_name);
        let detail = match (direct, template) {
            (Some(_), Some(_)) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => "",
        };
        if !detail.is_empty() {
            let printed = internal_form::print("PodResourceClaim", &json!(claim));
            errors.push(invalid_printed(&path, &printed, detail));
        }
        for (field, name) in [("resourceClaimName", direct), ("resourceClaimTemplateName", template)] {
            if let Some(name) = name {
                errors.extend(dns_subdomain(name, &path.child(field)));
            }
        }
    }
    errors
}

/// On the host's network a container's port is the host's port. A template may leave that to the pod's defaults.
fn host_network(spec: &PodSpec, context: &Context<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if spec.host_network != Some(true) {
        return errors;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or_default();
            if (context.is_pod() || host_port != 0) && host_port != port.container_port {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&path, host_port, detail));
            }
        }
    }
    errors
}

fn dns(config: Option<&PodDNSConfig>, policy: &str, path: &Path) -> ErrorList {
    /// Limits of libc's resolver.
    const MAX_NAMESERVERS: usize = 3;
    const MAX_SEARCHES: usize = 32;
    const MAX_SEARCH_CHARACTERS: usize = 2048;
    let mut errors = ErrorList::new();
    if policy == "None" {
        let Some(config) = config else {
            return vec![Error::required(path, "must provide `dnsConfig` when `dnsPolicy` is None")];
        };
        if config.nameservers.as_deref().unwrap_or_default().is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return vec![Error::required(&path.child("nameservers"), detail)];
        }
    }
    let Some(config) = config else { return errors };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let server_path = path.child("nameservers");
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(Error::invalid(&server_path, json!(servers), &detail));
    }
    for (i, server) in servers.iter().enumerate() {
        errors.extend(ip(server, &server_path.index(i)));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let search_path = path.child("searches");
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(Error::invalid(&search_path, json!(searches), &detail));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let detail = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        errors.push(Error::invalid(&search_path, json!(searches), &detail));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        let problems = names::dns1123_subdomain_with_underscore(search);
        errors.extend(invalid_each(&search_path.index(i), search, problems));
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if s(&option.name).is_empty() {
            errors.push(Error::required(&path.child("options").index(i), "must not be empty"));
        }
    }
    errors
}

fn names_of(spec: &PodSpec, path: &Path) -> ErrorList {
    /// Bytes of a host name that Linux takes.
    const MAX_HOSTNAME_BYTES: usize = 64;
    let mut errors = ErrorList::new();
    let mut check = |field: &str, value: &Option<String>, check: fn(&str, &Path) -> ErrorList| {
        if !s(value).is_empty() {
            errors.extend(check(s(value), &path.child(field)));
        }
    };
    check("serviceAccountName", &spec.service_account_name, dns_subdomain);
    check("nodeName", &spec.node_name, dns_subdomain);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = names::inclusive_range_error(1, i64::from(i32::MAX));
        errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, &detail));
    }
    let mut check = |field: &str, value: &Option<String>, check: fn(&str, &Path) -> ErrorList| {
        if !s(value).is_empty() {
            errors.extend(check(s(value), &path.child(field)));
        }
    };
    check("hostname", &spec.hostname, dns_label);
    check("subdomain", &spec.subdomain, dns_label);
    if let Some(name) = spec.hostname_override.as_deref() {
        let path = path.child("hostnameOverride");
        if spec.host_network == Some(true) {
            errors.push(Error::forbidden(&path, "may not be set when `hostNetwork` is true"));
        }
        if spec.set_hostname_as_fqdn == Some(true) {
            errors.push(Error::forbidden(&path, "may not be set when `setHostnameAsFQDN` is true"));
        }
        if name.len() > MAX_HOSTNAME_BYTES {
            errors.push(Error::too_long(&path, MAX_HOSTNAME_BYTES));
        }
        errors.extend(dns_subdomain(name, &path));
    }
    errors
}

fn host_aliases(aliases: &[HostAlias], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, alias) in aliases.iter().enumerate() {
        let path = path.index(i);
        errors.extend(ip(&alias.ip, &path.child("ip")));
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            errors.extend(dns_subdomain(name, &path.child("hostnames").index(j)));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::kinds::pod::defaults;
    use crate::kinds::testing::messages;

    fn check(spec: Value) -> Vec<String> {
        let mut pod = json!({"spec": spec});
        defaults::default_pod(&mut pod);
        let spec: PodSpec = serde_json::from_value(pod["spec"].clone()).unwrap();
        messages(&validate(&spec, &Context::pod("p"), &Path::new("spec")))
    }

    #[test]
    fn an_empty_spec_needs_containers() {
        assert_eq!(check(json!({})), ["spec.containers: Required value"]);
    }

    #[test]
    fn containers_are_checked_in_kubernetes_order() {
        let found = check(json!({"containers": [{
            "name": "Bad_Name", "image": "",
            "ports": [{"containerPort": 0}, {"containerPort": 70000, "protocol": "XXX", "name": "toolongportnamehere"}],
            "env": [{"name": "a b=c"}, {"name": ""}],
            "imagePullPolicy": "Sometimes", "terminationMessagePolicy": "X",
        }]}));
        let paths: Vec<&str> = found.iter().filter_map(|text| text.split(": ").next()).collect();
        assert_eq!(
            paths,
            [
                "spec.containers[0].name",
                "spec.containers[0].image",
                "spec.containers[0].terminationMessagePolicy",
                "spec.containers[0].ports[0].containerPort",
                "spec.containers[0].ports[1].name",
                "spec.containers[0].ports[1].containerPort",
                "spec.containers[0].ports[1].protocol",
                "spec.containers[0].env[0].name",
                "spec.containers[0].env[1].name",
                "spec.containers[0].imagePullPolicy",
            ]
        );
        assert_eq!(
            found[4],
            r#"spec.containers[0].ports[1].name: Invalid value: "toolongportnamehere": must be no more than 15 characters"#
        );
    }

    #[test]
    fn duplicates_are_found() {
        assert_eq!(
            check(json!({
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}],
                "containers": [
                    {"name": "c", "image": "x",
                     "ports": [{"name": "p", "containerPort": 1}, {"name": "p", "containerPort": 2}],
                     "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}, {"name": "absent", "mountPath": ""}]},
                    {"name": "c", "image": "y"},
                ],
            })),
            [
                r#"spec.volumes[1].name: Duplicate value: "v""#,
                r#"spec.containers[0].ports[1].name: Duplicate value: "p""#,
                r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique"#,
                r#"spec.containers[0].volumeMounts[2].name: Not found: "absent""#,
                "spec.containers[0].volumeMounts[2].mountPath: Required value",
                r#"spec.containers[1].name: Duplicate value: "c""#,
            ]
        );
    }

    #[test]
    fn enumerations_list_what_is_allowed() {
        assert_eq!(
            check(json!({"restartPolicy": "Maybe", "dnsPolicy": "Odd", "os": {"name": "plan9"},
                "containers": [{"name": "c", "image": "x"}]})),
            [
                r#"spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never""#,
                r#"spec.dnsPolicy: Unsupported value: "Odd": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None""#,
                r#"spec.os: Unsupported value: "plan9": supported values: "linux", "windows""#,
            ]
        );
    }
}

//! CRI configurations of sandboxes and containers, from a pod.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use wherry_runtimes::{
    Capability, ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    PortMapping, ProfileType, Protocol, SecurityProfile,
};

use super::expansion::expand;
use super::labels;
use super::observed::container_hash;
use super::resources::{amounts, qos_class};

/// Period of CPU quotas, in microseconds. Source: Kubernetes.
const CPU_PERIOD_MICROSECONDS: i64 = 100_000;
/// Smallest CPU shares. Source: the kernel.
const MIN_CPU_SHARES: i64 = 2;

/// Facts of the node that go into configurations.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// DNS of the cluster.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Memory of the node, in bytes.
    pub memory_bytes: i64,
}

/// The configuration of a pod's sandbox.
pub fn sandbox_config(pod: &Pod, attempt: u32, log_directory: &Path, node: &NodeFacts) -> PodSandboxConfig {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let (name, namespace) =
        (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone().unwrap_or_default());
    let uid = metadata.uid.clone().unwrap_or_default();
    let mut all_labels = metadata.labels.clone().unwrap_or_default();
    all_labels.extend(pod_labels(&name, &namespace, &uid));
    let on_host = spec.host_network.unwrap_or(false);
    let mode =
        |shared: Option<bool>| if shared == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    let security = spec.security_context.as_ref();
    let port_mappings = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .flat_map(|c| c.ports.iter().flatten())
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            container_port: port.container_port,
            host_port: if on_host { 0 } else { port.host_port.unwrap_or(0) },
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect();
    let hostname: String =
        spec.hostname.clone().filter(|h| !h.is_empty()).unwrap_or(name.clone()).chars().take(63).collect();
    PodSandboxConfig {
        metadata: PodSandboxMetadata { name, uid, namespace: namespace.clone(), attempt },
        hostname: if on_host { String::new() } else { hostname.trim_end_matches(['-', '.']).to_owned() },
        log_directory: log_directory.to_string_lossy().into_owned(),
        dns_config: dns_config(&spec, &namespace, node),
        port_mappings,
        labels: all_labels,
        annotations: metadata.annotations.clone().unwrap_or_default(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    network: mode(spec.host_network),
                    pid,
                    ipc: mode(spec.host_ipc),
                    ..NamespaceOption::default()
                }),
                run_as_user: security.and_then(|s| s.run_as_user),
                run_as_group: security.and_then(|s| s.run_as_group),
                supplemental_groups: supplemental_groups(&spec),
                privileged: spec
                    .containers
                    .iter()
                    .any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false)),
                seccomp: Some(seccomp(security.and_then(|s| s.seccomp_profile.as_ref()))),
                ..LinuxSandboxSecurityContext::default()
            }),
            sysctls: security
                .and_then(|s| s.sysctls.as_ref())
                .into_iter()
                .flatten()
                .map(|s| (s.name.clone(), s.value.clone()))
                .collect(),
            ..LinuxPodSandboxConfig::default()
        }),
    }
}

fn pod_labels(name: &str, namespace: &str, uid: &str) -> [(String, String); 3] {
    [(labels::POD_NAME, name), (labels::POD_NAMESPACE, namespace), (labels::POD_UID, uid)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn dns_config(spec: &PodSpec, namespace: &str, node: &NodeFacts) -> Option<DnsConfig> {
    let mut config = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        "Default" => return extended(spec, None),
        policy => {
            let on_host = spec.host_network.unwrap_or(false) && policy == "ClusterFirst";
            if on_host || node.cluster_dns.is_empty() {
                return extended(spec, None);
            }
            let domain = &node.cluster_domain;
            DnsConfig {
                servers: node.cluster_dns.clone(),
                searches: vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()],
                options: vec!["ndots:5".to_owned()],
            }
        }
    };
    config = extended(spec, Some(config))?;
    Some(config)
}

fn extended(spec: &PodSpec, config: Option<DnsConfig>) -> Option<DnsConfig> {
    let Some(extra) = &spec.dns_config else { return config };
    let mut config = config.unwrap_or_default();
    config.servers.extend(extra.nameservers.iter().flatten().cloned());
    config.searches.extend(extra.searches.iter().flatten().cloned());
    config.options.extend(extra.options.iter().flatten().map(|o| match (&o.name, &o.value) {
        (Some(name), Some(value)) if !value.is_empty() => format!("{name}:{value}"),
        (name, _) => name.clone().unwrap_or_default(),
    }));
    Some(config)
}

fn supplemental_groups(spec: &PodSpec) -> Vec<i64> {
    let security = spec.security_context.as_ref();
    let mut groups = security.and_then(|s| s.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(security.and_then(|s| s.fs_group));
    groups
}

fn seccomp(profile: Option<&k8s_openapi::api::core::v1::SeccompProfile>) -> SecurityProfile {
    let profile_type = match profile.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    SecurityProfile {
        profile_type,
        localhost_ref: profile.and_then(|p| p.localhost_profile.clone()).unwrap_or_default(),
    }
}

/// Everything that a container's configuration is made from.
#[derive(Debug, Clone, Copy)]
pub struct ContainerInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The runtime's reference of the image.
    pub image_ref: &'a str,
    /// Handler of the runtime, for images that differ by handler.
    pub runtime_handler: &'a str,
    /// Variables.
    pub environment: &'a BTreeMap<String, String>,
    /// Mounts.
    pub mounts: &'a [Mount],
    /// Restarts before this one.
    pub restart_count: u32,
    /// Facts of the node.
    pub node: &'a NodeFacts,
}

/// The configuration of a container.
pub fn container_config(input: ContainerInput<'_>) -> ContainerConfig {
    let ContainerInput { pod, container, environment, .. } = input;
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let (name, namespace) =
        (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone().unwrap_or_default());
    let mut all_labels: BTreeMap<String, String> =
        pod_labels(&name, &namespace, metadata.uid.as_deref().unwrap_or_default()).into();
    all_labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    let annotations = [
        (labels::CONTAINER_HASH, container_hash(container)),
        (labels::CONTAINER_RESTART_COUNT, input.restart_count.to_string()),
        (labels::TERMINATION_MESSAGE_PATH, container.termination_message_path.clone().unwrap_or_default()),
        (
            labels::TERMINATION_MESSAGE_POLICY,
            container.termination_message_policy.clone().unwrap_or_default(),
        ),
        (labels::POD_GRACE_PERIOD, spec.termination_grace_period_seconds.unwrap_or(30).to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, environment)).collect()
    };
    ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: input.restart_count },
        image: ImageSpec {
            image: input.image_ref.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            runtime_handler: input.runtime_handler.to_owned(),
            ..ImageSpec::default()
        },
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: input.mounts.to_vec(),
        labels: all_labels,
        annotations,
        log_path: format!("{}/{}.log", container.name, input.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(linux_resources(&spec, container, input.node)),
            security_context: Some(security_context(&spec, container)),
        }),
        ..ContainerConfig::default()
    }
}

fn linux_resources(spec: &PodSpec, container: &Container, node: &NodeFacts) -> LinuxContainerResources {
    let limits = amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let requests = amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let cpu_limit = limits.get("cpu").copied().unwrap_or(0);
    let cpu_request = requests.get("cpu").copied().unwrap_or(cpu_limit);
    let memory_limit = limits.get("memory").copied().unwrap_or(0);
    let memory_request = requests.get("memory").copied().unwrap_or(memory_limit);
    let oom_score_adj = match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ if node.memory_bytes > 0 => {
            (1000 - memory_request.saturating_mul(1000) / node.memory_bytes).clamp(3, 999)
        }
        _ => 999,
    };
    LinuxContainerResources {
        cpu_period: if cpu_limit > 0 { CPU_PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: if cpu_limit > 0 { (cpu_limit * CPU_PERIOD_MICROSECONDS / 1000).max(1000) } else { 0 },
        cpu_shares: (cpu_request * 1024 / 1000).max(MIN_CPU_SHARES),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj,
        ..LinuxContainerResources::default()
    }
}

fn security_context(spec: &PodSpec, container: &Container) -> LinuxContainerSecurityContext {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let privileged = own.and_then(|s| s.privileged).unwrap_or(false);
    let capabilities = own.and_then(|s| s.capabilities.as_ref()).map(|c| Capability {
        add_capabilities: c.add.clone().unwrap_or_default(),
        drop_capabilities: c.drop.clone().unwrap_or_default(),
        ..Capability::default()
    });
    let mode =
        |shared: Option<bool>| if shared == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let profile =
        own.and_then(|s| s.seccomp_profile.as_ref()).or(pod.and_then(|s| s.seccomp_profile.as_ref()));
    LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(NamespaceOption {
            network: mode(spec.host_network),
            pid: match (spec.host_pid, spec.share_process_namespace) {
                (Some(true), _) => NamespaceMode::Node,
                (_, Some(true)) => NamespaceMode::Pod,
                _ => NamespaceMode::Container,
            },
            ipc: mode(spec.host_ipc),
            ..NamespaceOption::default()
        }),
        run_as_user: own.and_then(|s| s.run_as_user).or(pod.and_then(|s| s.run_as_user)),
        run_as_group: own.and_then(|s| s.run_as_group).or(pod.and_then(|s| s.run_as_group)),
        readonly_rootfs: own.and_then(|s| s.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: supplemental_groups(spec),
        no_new_privs: own.and_then(|s| s.allow_privilege_escalation) == Some(false),
        masked_paths: if privileged { Vec::new() } else { MASKED_PATHS.map(str::to_owned).to_vec() },
        readonly_paths: if privileged { Vec::new() } else { READONLY_PATHS.map(str::to_owned).to_vec() },
        seccomp: Some(if privileged { seccomp(None) } else { seccomp(profile) }),
        ..LinuxContainerSecurityContext::default()
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

    #[test]
    fn a_container_gets_expanded_words_limits_and_its_log_file() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i", "command": ["/x", "$(A)"], "args": ["$$(A)"],
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]},
        }))
        .unwrap();
        let environment = [("A".to_owned(), "1".to_owned())].into();
        let node = NodeFacts::default();
        let config = container_config(ContainerInput {
            pod: &pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            image_ref: "sha256:1",
            runtime_handler: "",
            environment: &environment,
            mounts: &[],
            restart_count: 3,
            node: &node,
        });
        assert_eq!((config.command, config.args), (vec!["/x".into(), "1".into()], vec!["$(A)".to_owned()]));
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.labels[labels::POD_UID], "u");
        let resources = config.linux.unwrap().resources.unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_shares), (50_000, 512));
        assert_eq!((resources.memory_limit_in_bytes, resources.oom_score_adj), (64 << 20, -997));
    }

    #[test]
    fn pods_without_a_dns_policy_use_the_cluster_dns() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "dnsConfig": {"options": [{"name": "timeout", "value": "1"}]}},
        }))
        .unwrap();
        let node = NodeFacts {
            cluster_dns: vec!["127.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            ..NodeFacts::default()
        };
        let config = sandbox_config(&pod, 0, Path::new("/logs"), &node);
        let dns = config.dns_config.unwrap();
        assert_eq!(dns.searches, ["n.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!(dns.options, ["ndots:5", "timeout:1"]);
        assert_eq!(config.hostname, "p");
    }
}

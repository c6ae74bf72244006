//! CRI configurations of sandboxes and containers, from a pod.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use wherry_runtimes::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, LinuxPodSandboxConfig,
    Mount, NamespaceMode, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};

use super::dns_config::{HostDns, pod_dns};
use super::expansion::expand;
use super::hostname::kernel_name;
use super::labels;
use super::linux_resources::{container_resources, sandbox_resources};
use super::observed::container_hash;
use super::security_context::{ImageUser, container_security_context, sandbox_security_context};
use super::sysctls::normalized;

/// Facts of the node that go into configurations.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// DNS of the cluster.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The node's own resolver.
    pub host_dns: HostDns,
    /// Memory of the node, in bytes.
    pub memory_bytes: i64,
    /// Sizes of huge pages that the node has, in bytes.
    pub hugepage_bytes: Vec<u64>,
    /// Where seccomp profiles of type Localhost are.
    pub seccomp_root: PathBuf,
}

/// Everything that a sandbox's configuration is made from.
#[derive(Debug, Clone, Copy)]
pub struct SandboxInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Where its logs are.
    pub log_directory: &'a Path,
    /// The pod's cgroup; empty leaves it to the runtime.
    pub cgroup_parent: &'a str,
    /// Facts of the node.
    pub node: &'a NodeFacts,
}

/// The configuration of a pod's sandbox.
///
/// # Errors
/// A name that the kernel would not take; for people.
pub fn sandbox_config(input: SandboxInput<'_>) -> Result<PodSandboxConfig, String> {
    let SandboxInput { pod, node, .. } = input;
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let (name, namespace) =
        (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone().unwrap_or_default());
    let uid = metadata.uid.clone().unwrap_or_default();
    let mut all_labels = metadata.labels.clone().unwrap_or_default();
    all_labels.extend(pod_labels(&name, &namespace, &uid));
    let on_host = spec.host_network.unwrap_or(false);
    let hostname = if on_host { String::new() } else { kernel_name(pod, &node.cluster_domain)? };
    let (resources, overhead) = sandbox_resources(&spec);
    let dns = pod_dns(&spec, &namespace, &crate::kubelet::format_pod(pod), node);
    Ok(PodSandboxConfig {
        metadata: PodSandboxMetadata { name, uid, namespace, attempt: input.attempt },
        hostname,
        log_directory: input.log_directory.to_string_lossy().into_owned(),
        dns_config: dns.config,
        port_mappings: port_mappings(&spec),
        labels: all_labels,
        annotations: metadata.annotations.clone().unwrap_or_default(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: input.cgroup_parent.to_owned(),
            security_context: Some(sandbox_security_context(&spec)),
            sysctls: spec
                .security_context
                .iter()
                .flat_map(|s| s.sysctls.iter().flatten())
                .map(|s| (normalized(&s.name), s.value.clone()))
                .collect(),
            overhead,
            resources: Some(resources),
        }),
    })
}

fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    let on_host = spec.host_network.unwrap_or(false);
    spec.containers
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
        .collect()
}

fn pod_labels(name: &str, namespace: &str, uid: &str) -> [(String, String); 3] {
    [(labels::POD_NAME, name), (labels::POD_NAMESPACE, namespace), (labels::POD_UID, uid)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
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
    /// The user that the image names.
    pub image_user: &'a ImageUser,
    /// The container whose processes it sees, for an ephemeral container that names one.
    pub target_id: Option<&'a str>,
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
    let mut security =
        container_security_context(&spec, container, input.image_user, &input.node.seccomp_root);
    if let (Some(target), Some(namespaces)) = (input.target_id, security.namespace_options.as_mut()) {
        namespaces.pid = NamespaceMode::Target;
        namespaces.target_id = target.to_owned();
    }
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
            resources: Some(container_resources(pod, container, input.node)),
            security_context: Some(security),
        }),
        ..ContainerConfig::default()
    }
}

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
            image_user: &ImageUser::default(),
            target_id: Some("other"),
            node: &node,
        });
        assert_eq!((config.command, config.args), (vec!["/x".into(), "1".into()], vec!["$(A)".to_owned()]));
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.labels[labels::POD_UID], "u");
        let linux = config.linux.unwrap();
        let namespaces = linux.security_context.unwrap().namespace_options.unwrap();
        assert_eq!((namespaces.pid, namespaces.target_id.as_str()), (NamespaceMode::Target, "other"));
        let resources = linux.resources.unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_shares), (50_000, 512));
        assert_eq!((resources.memory_limit_in_bytes, resources.oom_score_adj), (64 << 20, -997));
    }

    #[test]
    fn a_sandbox_has_the_pods_names_ports_parameters_and_cgroup() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "ports": [
                    {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.9"}]}],
                "subdomain": "s", "setHostnameAsFQDN": true, "overhead": {"cpu": "100m"},
                "securityContext": {"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "0"}]}},
        }))
        .unwrap();
        let node = NodeFacts {
            cluster_dns: vec!["127.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            ..NodeFacts::default()
        };
        let make = |pod: &Pod| {
            sandbox_config(SandboxInput {
                pod,
                attempt: 2,
                log_directory: Path::new("/logs"),
                cgroup_parent: "/kubepods/besteffort/podu",
                node: &node,
            })
            .unwrap()
        };
        let config = make(&pod);
        assert_eq!(config.hostname, "p.s.n.svc.cluster.local");
        assert_eq!((config.labels["app"].as_str(), config.labels[labels::POD_UID].as_str()), ("x", "u"));
        let port = &config.port_mappings[0];
        assert_eq!(
            (port.protocol, port.host_port, port.host_ip.as_str()),
            (Protocol::Udp, 5353, "127.0.0.9")
        );
        assert_eq!(config.dns_config.unwrap().servers, ["127.96.0.10"]);
        let linux = config.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/kubepods/besteffort/podu");
        assert_eq!(linux.sysctls["net.ipv4.tcp_syncookies"], "0");
        assert_eq!(linux.overhead.unwrap().cpu_shares, 102);
        let mut on_host = pod.clone();
        on_host.spec.as_mut().unwrap().host_network = Some(true);
        let config = make(&on_host);
        assert_eq!((config.hostname.as_str(), config.port_mappings[0].host_port), ("", 0));
        assert_eq!(
            config.linux.unwrap().security_context.unwrap().namespace_options.unwrap().network,
            NamespaceMode::Node
        );
    }
}

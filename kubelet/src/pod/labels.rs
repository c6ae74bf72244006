//! Labels and annotations that tie sandboxes and containers to pods. Source: Kubernetes' container runtime labels.

/// Pod name, on sandboxes and containers.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Pod namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Pod uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Container name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: hash of the definition.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: restarts before this one.
pub const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container writes its last words.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: what to do when it writes none.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: grace period of the pod, in seconds.
pub const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Annotation of a container: name of the runtime that has it, the prefix of its id.
pub const CONTAINER_RUNTIME: &str = "wherry.dev/container-runtime";
/// Label of a sandbox that borrows the network of another: the id of that one.
pub const SANDBOX_OF: &str = "wherry.dev/sandbox-of";
/// Annotation of such a sandbox: whose network it borrows, as the node's socket broker knows it.
pub const NETWORK_OF: &str = "wherry.dev/network-of";
/// Annotation of such a sandbox: the addresses of that network, separated by commas.
pub const NETWORK_IPS: &str = "wherry.dev/network-ips";

/// Annotation of a static pod: hash of its manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation of a mirror pod: hash of the static pod that it shows.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation: where a pod's definition comes from.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: when this node first saw the definition.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

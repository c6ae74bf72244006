//! Ephemeral containers: added to a pod that runs, started once, never restarted.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

/// A pod's ephemeral containers as containers like others, in their order.
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    definitions(pod).iter().map(as_container).collect()
}

fn definitions(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|s| s.ephemeral_containers.as_deref()).unwrap_or_default()
}

/// The container whose processes an ephemeral one wants to see.
pub fn target_name<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let definition = definitions(pod).iter().find(|container| container.name == name)?;
    definition.target_container_name.as_deref().filter(|target| !target.is_empty())
}

/// Whether the pod has an ephemeral container of that name.
pub fn is_ephemeral(pod: &Pod, name: &str) -> bool {
    definitions(pod).iter().any(|container| container.name == name)
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        name: e.name,
        image: e.image,
        command: e.command,
        args: e.args,
        working_dir: e.working_dir,
        env: e.env,
        env_from: e.env_from,
        image_pull_policy: e.image_pull_policy,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        tty: e.tty,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        volume_mounts: e.volume_mounts,
        volume_devices: e.volume_devices,
        // Probes, ports, hooks, resources and restart policies are not allowed.
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_ephemeral_container_is_a_container_that_may_name_another() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}],
            "ephemeralContainers": [{"name": "d", "image": "i", "command": ["sh"], "stdin": true, "targetContainerName": "a"},
                {"name": "e", "image": "i"}]}}))
        .unwrap();
        let found = ephemeral_containers(&pod);
        assert_eq!((found[0].name.as_str(), found[0].stdin), ("d", Some(true)));
        assert_eq!(
            (target_name(&pod, "d"), target_name(&pod, "e"), target_name(&pod, "a")),
            (Some("a"), None, None)
        );
        assert!(is_ephemeral(&pod, "e") && !is_ephemeral(&pod, "a"));
    }
}

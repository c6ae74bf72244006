//! Bringing images to the node, with the events that tell of it.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use wherry_client::EventType;
use wherry_runtimes::{ImageSpec, PodSandboxConfig};

use super::pull_secrets::credentials;
use super::reference::with_default_tag;
use crate::kubelet::Kubelet;
use crate::pod::backoff::go_duration;
use crate::pod::sources::References;
use crate::runtimes::NodeRuntime;

/// What the policy says about an image that is here or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullDecision {
    /// Use what is here.
    UsePresent,
    /// Fetch it.
    Pull,
    /// It is not here and may not be fetched.
    NeverPull,
}

/// Decides from the policy; an absent policy is Always for the tag `latest`, else IfNotPresent.
pub fn pull_decision(policy: Option<&str>, image: &str, is_present: bool) -> PullDecision {
    let default = if with_default_tag(image).ends_with(":latest") { "Always" } else { "IfNotPresent" };
    match (policy.filter(|p| !p.is_empty()).unwrap_or(default), is_present) {
        ("Never", false) => PullDecision::NeverPull,
        ("Never", true) | ("IfNotPresent", true) => PullDecision::UsePresent,
        _ => PullDecision::Pull,
    }
}

/// An image that could not be had: the container's waiting reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The outcome of a look at what is here.
pub(crate) enum ImageState {
    /// The reference to run.
    Present(String),
    /// It has to be fetched.
    Absent,
}

/// Looks whether an image is here and may be used as it is.
pub(crate) async fn look(
    kubelet: &Kubelet,
    runtime: &NodeRuntime,
    pod: &Pod,
    container: &Container,
) -> Result<ImageState, ImageError> {
    let image = container.image.as_deref().unwrap_or_default();
    let spec = image_spec(runtime, image);
    let present = runtime.service.image_status(&spec).await.map_err(|error| {
        let message = format!("Failed to inspect image {image:?}: {error}");
        kubelet.container_event(pod, &container.name, EventType::Warning, "InspectFailed", message.clone());
        ImageError { reason: "ImageInspectError", message }
    })?;
    match pull_decision(container.image_pull_policy.as_deref(), image, present.is_some()) {
        PullDecision::NeverPull => {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            kubelet.container_event(
                pod,
                &container.name,
                EventType::Warning,
                "ErrImageNeverPull",
                message.clone(),
            );
            Err(ImageError { reason: "ErrImageNeverPull", message })
        }
        PullDecision::UsePresent => {
            let message = format!(
                "Container image {image:?} already present on machine and can be accessed by the pod"
            );
            kubelet.container_event(pod, &container.name, EventType::Normal, "Pulled", message);
            Ok(ImageState::Present(present.map(|image| image.id).unwrap_or_default()))
        }
        PullDecision::Pull => Ok(ImageState::Absent),
    }
}

/// The pod's pull secrets, as far as they exist.
pub(crate) async fn pull_secrets(kubelet: &Kubelet, pod: &Pod, references: &References) -> Vec<Arc<Secret>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let names: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|s| s.image_pull_secrets.iter().flatten())
        .map(|secret| secret.name.as_str())
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let sources = kubelet.objects.gather(uid, namespace, references).await.unwrap_or_default();
    names.iter().filter_map(|name| sources.secrets.get(*name).cloned()).collect()
}

/// Fetches an image with the credentials that fit, trying one after the other.
pub(crate) async fn pull(
    kubelet: &Kubelet,
    runtime: &NodeRuntime,
    pod: &Pod,
    container: &Container,
    secrets: &[Arc<Secret>],
) -> Result<String, ImageError> {
    let image = container.image.as_deref().unwrap_or_default();
    let name = &container.name;
    kubelet.container_event(pod, name, EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
    let spec = image_spec(runtime, image);
    let sandbox = PodSandboxConfig::default();
    let started = Instant::now();
    let mut outcome = None;
    for auth in credentials(image, secrets.iter().map(std::convert::AsRef::as_ref)) {
        match runtime.service.pull_image(&spec, Some(&auth), &sandbox).await {
            Ok(reference) => {
                outcome = Some(Ok(reference));
                break;
            }
            Err(error) => outcome = Some(Err(error)),
        }
    }
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => runtime.service.pull_image(&spec, None, &sandbox).await,
    };
    match outcome {
        Ok(reference) => {
            let took = go_duration(std::time::Duration::from_millis(
                u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            ));
            let size = match runtime.service.image_status(&spec).await {
                Ok(Some(image)) => image.size,
                _ => 0,
            };
            let message = format!(
                "Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {size} bytes."
            );
            kubelet.container_event(pod, name, EventType::Normal, "Pulled", message);
            Ok(reference)
        }
        Err(error) => {
            let message = format!("Failed to pull image {image:?}: {error}");
            kubelet.container_event(pod, name, EventType::Warning, "Failed", message.clone());
            Err(ImageError { reason: "ErrImagePull", message: error.to_string() })
        }
    }
}

fn image_spec(runtime: &NodeRuntime, image: &str) -> ImageSpec {
    ImageSpec {
        image: with_default_tag(image),
        user_specified_image: image.to_owned(),
        runtime_handler: runtime.handler.clone(),
        ..ImageSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_decides_what_happens_to_an_image() {
        use PullDecision::{NeverPull, Pull, UsePresent};
        for (policy, image, present, expected) in [
            (Some("Always"), "a:1", true, Pull),
            (Some("IfNotPresent"), "a:1", true, UsePresent),
            (Some("IfNotPresent"), "a:1", false, Pull),
            (Some("Never"), "a:1", true, UsePresent),
            (Some("Never"), "a:1", false, NeverPull),
            (None, "a", true, Pull),
            (None, "a:1", true, UsePresent),
        ] {
            assert_eq!(pull_decision(policy, image, present), expected, "{policy:?} {image} {present}");
        }
    }
}

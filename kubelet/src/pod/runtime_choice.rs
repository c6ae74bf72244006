//! Which runtime a pod gets.

use std::sync::Arc;
use std::time::Duration;

use wherry_client::EventType;

use super::worker::Worker;
use crate::config::RuntimeRole;
use crate::images::puller;
use crate::runtimes::NodeRuntime;

impl Worker {
    /// The runtime of the pod; chosen once, by RuntimeClass or else by image.
    pub(super) async fn choose_runtime(&mut self) -> Option<Arc<NodeRuntime>> {
        if let Some(runtime) = &self.runtime {
            return Some(runtime.clone());
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        let found = match spec.runtime_class_name.filter(|name| !name.is_empty()) {
            None => {
                let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
                let images: Vec<String> = all.filter_map(|c| c.image.clone()).collect();
                let secrets = puller::pull_secrets(&self.kubelet, &self.pod, &self.references).await;
                Ok(self.kubelet.runtimes.by_images(&images, &secrets).await)
            }
            Some(name) => match self.kubelet.runtime_classes.store().get("", &name) {
                Some(class) => self
                    .kubelet
                    .runtimes
                    .by_handler(&class.handler)
                    .ok_or_else(|| format!("no runtime for {:?} is configured", class.handler)),
                None => {
                    Err(format!("failed to get sandbox runtime: runtimeclass.node.k8s.io {name:?} not found"))
                }
            },
        };
        let found = found.and_then(|runtime| match runtime.problem() {
            None => Ok(runtime),
            Some(why) => {
                Err(format!("the container runtime for {:?} is not available: {why}", runtime.handler))
            }
        });
        match found {
            Ok(runtime) => {
                self.runtime = Some(runtime.clone());
                if runtime.role == RuntimeRole::Optional {
                    // It may have come after this kubelet, with the pod in it.
                    self.take_strays(&runtime).await;
                }
                Some(runtime)
            }
            Err(message) => {
                if self.may_retry("runtime") {
                    let text = format!("Failed to create pod sandbox: {message}");
                    self.kubelet.pod_event(&self.pod, EventType::Warning, "FailedCreatePodSandBox", text);
                    self.failed("runtime", Duration::from_secs(1));
                }
                None
            }
        }
    }
}

//! Which runtime a pod gets.

use std::sync::Arc;
use std::time::Duration;

use wherry_client::EventType;

use super::worker::Worker;
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
                let image = spec.containers.first().and_then(|c| c.image.clone()).unwrap_or_default();
                Ok(self.kubelet.runtimes.by_image(&image).await)
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
        match found {
            Ok(runtime) => {
                self.runtime = Some(runtime.clone());
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

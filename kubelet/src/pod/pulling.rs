//! Images that a pod's containers wait for.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use wherry_client::EventType;

use super::backoff::elapsed;
use super::status::Waiting;
use super::worker::{Done, Image, Worker};
use crate::images::puller;
use crate::runtimes::NodeRuntime;

impl Worker {
    pub(super) fn is_image_ready(&mut self, container: &Container, now: Timestamp) -> bool {
        let name = &container.name;
        let (error, at, is_reported) = match self.images.get(name) {
            None | Some(Image::Here(..)) => return true,
            Some(Image::Pulling) => return false,
            Some(Image::Failed { error, at, is_reported }) => (error.clone(), *at, *is_reported),
        };
        let image = container.image.clone().unwrap_or_default();
        match self.image_backoff.remaining(&image, at, now) {
            None => {
                self.image_backoff.advance(&image, at, now);
                // Looked for again first: it may have been loaded on this node meanwhile.
                self.images.remove(name);
                return true;
            }
            Some(wait) => {
                // ErrImagePull is shown for a moment, then the back-off.
                let shown = elapsed(at, now);
                let moment = Duration::from_secs(1);
                if shown >= moment && !is_reported {
                    let message = format!("Back-off pulling image {image:?}");
                    self.kubelet.container_event(
                        &self.pod,
                        name,
                        EventType::Normal,
                        "BackOff",
                        message.clone(),
                    );
                    let text = "Error: ImagePullBackOff";
                    self.kubelet.container_event(&self.pod, name, EventType::Warning, "Failed", text);
                    let message = format!("{message}: ErrImagePull: {}", error.message);
                    self.waiting
                        .insert(name.clone(), Waiting { reason: "ImagePullBackOff".to_owned(), message });
                    self.images.insert(name.clone(), Image::Failed { error, at, is_reported: true });
                }
                let next = if shown < moment { moment - shown } else { wait.remaining };
                self.wake_in(next.min(wait.remaining));
            }
        }
        false
    }

    pub(super) fn pull(&mut self, runtime: &Arc<NodeRuntime>, container: Container) {
        self.images.insert(container.name.clone(), Image::Pulling);
        let (kubelet, runtime, pod) = (self.kubelet.clone(), runtime.clone(), self.pod.clone());
        let references = self.references.clone();
        self.tasks.spawn(async move {
            let secrets = puller::pull_secrets(&kubelet, &pod, &references).await;
            let result = puller::pull(&kubelet, &runtime, &pod, &container, &secrets).await;
            let result = result.map(|reference| (reference, runtime));
            Done::Pulled { container: container.name, result }
        });
    }

    /// An image is here, or could not be fetched.
    pub(super) fn pulled(
        &mut self,
        container: String,
        result: Result<(String, Arc<NodeRuntime>), puller::ImageError>,
    ) {
        let now = self.kubelet.now();
        let image = self.container(&container).and_then(|c| c.image.clone()).unwrap_or_default();
        match result {
            Ok((reference, holder)) => {
                self.image_backoff.forget(&image);
                self.waiting.remove(&container);
                self.images.insert(container, Image::Here(reference, holder));
            }
            Err(error) => {
                let text = format!("Error: {}", error.reason);
                self.kubelet.container_event(&self.pod, &container, EventType::Warning, "Failed", text);
                if self.image_backoff.remaining(&image, now, now).is_none() {
                    self.image_backoff.advance(&image, now, now);
                }
                let waiting = Waiting { reason: error.reason.to_owned(), message: error.message.clone() };
                self.waiting.insert(container.clone(), waiting);
                self.images.insert(container, Image::Failed { error, at: now, is_reported: false });
            }
        }
    }
}

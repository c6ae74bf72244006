//! For which runtime an image was made, by its registry's word.

use wherry_kubelet::ImageKinds;
use wherry_runtime_wasm::image::{self, ImageKind, PullOptions};
use wherry_runtimes::{AuthConfig, Error};

use crate::{containerd, node};

/// Asks the image's registry for its manifest (and its configuration, where that is not enough).
#[derive(Debug)]
pub struct RegistryImageKinds;

#[async_trait::async_trait]
impl ImageKinds for RegistryImageKinds {
    async fn handler_of(&self, name: &str, credentials: &[AuthConfig]) -> Result<String, Error> {
        let mut last = Error::Unavailable(format!("nobody was asked about {name}"));
        for auth in credentials.iter().map(Some).chain([None]) {
            let credentials = image::Credentials::of(auth)?;
            let options = PullOptions { credentials, ..PullOptions::default() };
            match image::kind_of(name, &options).await {
                Ok(ImageKind::Wasm) => return Ok(node::WASM_HANDLER.to_owned()),
                Ok(ImageKind::Container) => return Ok(containerd::HANDLER.to_owned()),
                Err(error) => last = Error::Unavailable(error.to_string()),
            }
        }
        Err(last)
    }
}

//! The fake's images: a name is all there is to one.

use async_trait::async_trait;

use super::FakeRuntime;
use crate::log::unix_nanos;
use crate::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, Image, ImageFsInfoResponse, ImageService, ImageSpec,
    PodSandboxConfig, Result,
};

/// Bytes that every image is said to have.
const IMAGE_BYTES: u64 = 1_000_000;

pub(super) fn image(name: &str) -> Image {
    // FNV-1a: the id only has to be the same for the same name.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let id = format!("sha256:{hash:016x}{hash:016x}{hash:016x}{hash:016x}");
    Image {
        repo_tags: vec![name.to_owned()],
        repo_digests: vec![format!("{}@{id}", name.split([':', '@']).next().unwrap_or_default())],
        id,
        size: IMAGE_BYTES,
        ..Default::default()
    }
}

fn is(image: &Image, name: &str) -> bool {
    image.id == name
        || image.repo_tags.iter().any(|tag| tag == name)
        || image.repo_digests.iter().any(|digest| digest == name)
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self, filter: &ImageSpec) -> Result<Vec<Image>> {
        let state = self.shared.enter("ListImages", "")?;
        let all = filter.image.is_empty();
        Ok(state.images.values().filter(|image| all || is(image, &filter.image)).cloned().collect())
    }

    async fn image_status(&self, wanted: &ImageSpec) -> Result<Option<Image>> {
        let state = self.shared.enter("ImageStatus", &wanted.image)?;
        Ok(state.images.values().find(|image| is(image, &wanted.image)).cloned())
    }

    async fn pull_image(
        &self,
        wanted: &ImageSpec,
        _auth: Option<&AuthConfig>,
        _sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        let mut state = self.shared.enter("PullImage", &wanted.image)?;
        if let Some(error) = state.failing_pulls.get(&wanted.image) {
            return Err(error.clone());
        }
        let image = image(&wanted.image);
        let id = image.id.clone();
        state.images.insert(id.clone(), image);
        Ok(id)
    }

    async fn remove_image(&self, wanted: &ImageSpec) -> Result<()> {
        let mut state = self.shared.enter("RemoveImage", &wanted.image)?;
        state.images.retain(|_, image| !is(image, &wanted.image));
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        let state = self.shared.enter("ImageFsInfo", "")?;
        let usage = FilesystemUsage {
            timestamp: unix_nanos(self.shared.clock.now()),
            fs_id: FilesystemIdentifier { mountpoint: "/".to_owned() },
            used_bytes: Some(state.images.values().map(|image| image.size).sum()),
            inodes_used: Some(u64::try_from(state.images.len()).unwrap_or(u64::MAX)),
        };
        Ok(ImageFsInfoResponse { image_filesystems: vec![usage], container_filesystems: Vec::new() })
    }
}

//! CRI's image verbs on the image store.

use std::time::SystemTime;

use async_trait::async_trait;
use wherry_runtimes::log::unix_nanos;
use wherry_runtimes::{
    AuthConfig, Error, FilesystemIdentifier, FilesystemUsage, Image, ImageFsInfoResponse, ImageService,
    ImageSpec, PodSandboxConfig, Result,
};

use super::WasmRuntime;
use crate::image::{Credentials, ImageRecord, PullOptions};

fn image(record: ImageRecord) -> Image {
    Image {
        spec: Some(ImageSpec {
            image: record.id.clone(),
            annotations: record.annotations,
            ..Default::default()
        }),
        id: record.id,
        repo_tags: record.names,
        repo_digests: record.digests,
        size: record.size_bytes,
        ..Default::default()
    }
}

impl Credentials {
    /// Those of a CRI request.
    ///
    /// *Errors*: `auth` is not Docker's form of user and password.
    pub fn of(auth: Option<&AuthConfig>) -> Result<Self> {
        credentials(auth)
    }
}

fn credentials(auth: Option<&AuthConfig>) -> Result<Credentials> {
    let Some(auth) = auth else { return Ok(Credentials::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(Credentials::Bearer(auth.registry_token.clone()));
    }
    if !auth.username.is_empty() {
        return Ok(Credentials::Basic { username: auth.username.clone(), password: auth.password.clone() });
    }
    if auth.auth.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    // Docker's form: base64 of user:password.
    let invalid = || Error::InvalidArgument("auth is not base64 of user:password".to_owned());
    let decoded = decode_base64(auth.auth.trim()).ok_or_else(invalid)?;
    let text = String::from_utf8(decoded).map_err(|_| invalid())?;
    let (username, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok(Credentials::Basic {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    })
}

/// Standard base64, padded or not.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[async_trait]
impl ImageService for WasmRuntime {
    async fn list_images(&self, filter: &ImageSpec) -> Result<Vec<Image>> {
        if !filter.image.is_empty() {
            return Ok(self.image_status(filter).await?.into_iter().collect());
        }
        Ok(self.inner.images.list()?.into_iter().map(image).collect())
    }

    async fn image_status(&self, wanted: &ImageSpec) -> Result<Option<Image>> {
        Ok(self.inner.images.find(&wanted.image)?.map(image))
    }

    async fn pull_image(
        &self,
        wanted: &ImageSpec,
        auth: Option<&AuthConfig>,
        _sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        let options =
            PullOptions { credentials: credentials(auth)?, plain_http: self.inner.config.plain_http.clone() };
        let record = self.inner.images.pull(&wanted.image, &options).await?;
        // Compiled now, while somebody waits for the pull anyway: the first start finds it ready.
        let wasm = self.inner.images.blob_path(&record.wasm_digest)?;
        self.inner.code.program(&record.wasm_digest, wasm).await?;
        Ok(record.id)
    }

    async fn remove_image(&self, wanted: &ImageSpec) -> Result<()> {
        let inner = std::sync::Arc::clone(&self.inner);
        let wanted = wanted.image.clone();
        let removed = tokio::task::spawn_blocking(move || -> Result<()> {
            if inner.images.remove_image(&wanted)? {
                let left: Vec<String> = inner.images.list()?.into_iter().map(|i| i.wasm_digest).collect();
                inner.code.keep_only(&left);
            }
            Ok(())
        });
        removed.await.map_err(|error| Error::Internal(format!("remove image: {error}")))?
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        let (used_bytes, inodes_used) = self.inner.images.usage()?;
        let usage = FilesystemUsage {
            timestamp: unix_nanos(SystemTime::now()),
            fs_id: FilesystemIdentifier { mountpoint: self.inner.images.root().display().to_string() },
            used_bytes: Some(used_bytes),
            inodes_used: Some(inodes_used),
        };
        Ok(ImageFsInfoResponse { image_filesystems: vec![usage], container_filesystems: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_in_each_of_their_forms() {
        let basic = |u: &str, p: &str| Credentials::Basic { username: u.to_owned(), password: p.to_owned() };
        let auth = |username: &str, password: &str, auth: &str| AuthConfig {
            username: username.to_owned(),
            password: password.to_owned(),
            auth: auth.to_owned(),
            ..Default::default()
        };
        assert_eq!(credentials(None).unwrap(), Credentials::Anonymous);
        assert_eq!(credentials(Some(&auth("", "", ""))).unwrap(), Credentials::Anonymous);
        assert_eq!(credentials(Some(&auth("me", "pw", ""))).unwrap(), basic("me", "pw"));
        assert_eq!(credentials(Some(&auth("", "", "bWU6cHc6eA=="))).unwrap(), basic("me", "pw:x"));
        assert!(credentials(Some(&auth("", "", "bWU"))).is_err());
        assert!(credentials(Some(&auth("", "", "%%%"))).is_err());
    }
}

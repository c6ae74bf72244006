//! Pulling from a registry.

use std::net::IpAddr;
use std::path::PathBuf;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use tokio::io::AsyncWrite;

use super::ingest::{digest_of, expect_digest};
use super::load::Blobs;
use super::manifest::{self, ACCEPTED, Document};
use super::reference::is_digest;
use super::{
    Error, ImageRecord, ImageStore, MAX_JSON_BYTES, MAX_LAYER_BYTES, MAX_LAYERS, MAX_WASM_BYTES, Reference,
};

/// Who we are to the registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A token that the registry gave before.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    /// Shows who, never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// Which registries may be spoken to without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only those on this machine.
    #[default]
    Loopback,
    /// Those on this machine, and these (`host` or `host:port`).
    Registries(Vec<String>),
    /// All of them.
    Always,
}

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Who we are.
    pub credentials: Credentials,
    /// Where TLS is not needed.
    pub plain_http: PlainHttp,
}

struct Pulled {
    directory: tempfile::TempDir,
}

impl Blobs for Pulled {
    fn path(&self, digest: &str) -> Result<PathBuf, Error> {
        if !is_digest(digest) {
            return Err(Error::NotWasm(format!("it names a blob by {digest:?}")));
        }
        Ok(self.directory.path().join(digest.replace(':', "-")))
    }
}

impl ImageStore {
    /// Pulls an image from its registry, checking every digest.
    ///
    /// *Cancellation*: dropping it leaves nothing behind but what was there before.
    pub async fn pull(&self, name: &str, options: &PullOptions) -> Result<ImageRecord, Error> {
        let name: Reference = name.parse()?;
        let puller = Puller::new(&name, options)?;
        let (manifest_bytes, document) = puller.manifest().await?;
        let blobs = Pulled {
            directory: tempfile::tempdir_in(self.ingest_dir())
                .map_err(Error::file("make a directory in", self.ingest_dir()))?,
        };
        if document.layers.len() > MAX_LAYERS {
            return Err(Error::NotWasm(format!("it has more than {MAX_LAYERS} layers")));
        }
        if let Some(config) = &document.config {
            puller.blob(config, MAX_JSON_BYTES, blobs.path(&config.digest)?).await?;
        }
        let config = match &document.config {
            Some(config) => super::ingest::read_small(&blobs.path(&config.digest)?, MAX_JSON_BYTES)?,
            None => Vec::new(),
        };
        let run = document.run_config(&config)?;
        match document.guest(&run)? {
            manifest::Guest::Layer(layer) => {
                puller.blob(&layer, MAX_WASM_BYTES, blobs.path(&layer.digest)?).await?;
            }
            manifest::Guest::Path(_) => {
                for layer in &document.layers {
                    puller.blob(layer, MAX_LAYER_BYTES, blobs.path(&layer.digest)?).await?;
                }
            }
        }
        let store = self.clone();
        let import = move || store.import(&manifest_bytes, &document, &blobs, &name);
        tokio::task::spawn_blocking(import)
            .await
            .map_err(|error| Error::Registry { name: "the image".to_owned(), why: error.to_string() })?
    }
}

pub(super) struct Puller {
    client: oci_client::Client,
    image: oci_client::Reference,
    auth: RegistryAuth,
    name: String,
    digest: Option<String>,
}

impl Puller {
    pub(super) fn new(name: &Reference, options: &PullOptions) -> Result<Self, Error> {
        // The TLS library wants one provider for the whole process; if the binary chose one before, that one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol = if is_plain(name.registry(), &options.plain_http) {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(std::time::Duration::from_secs(30)),
            read_timeout: Some(std::time::Duration::from_secs(60)),
            user_agent: concat!("wherry/", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        };
        let auth = match &options.credentials {
            Credentials::Anonymous => RegistryAuth::Anonymous,
            Credentials::Basic { username, password } => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            Credentials::Bearer(token) => RegistryAuth::Bearer(token.clone()),
        };
        Ok(Self {
            client: oci_client::Client::new(config),
            image: reference(name),
            auth,
            name: name.to_string(),
            digest: name.digest().map(str::to_owned),
        })
    }

    pub(super) async fn manifest(&self) -> Result<(Vec<u8>, Document), Error> {
        let mut image = self.image.clone();
        let mut expected = self.digest.clone();
        for _ in 0..3 {
            let (bytes, _) = self
                .client
                .pull_manifest_raw(&image, &self.auth, &ACCEPTED)
                .await
                .map_err(|error| self.failed(&error))?;
            if bytes.len() as u64 > MAX_JSON_BYTES {
                return Err(Error::TooLarge { what: "the manifest".to_owned(), limit_bytes: MAX_JSON_BYTES });
            }
            if let Some(expected) = &expected {
                expect_digest("manifest", expected, &digest_of(&bytes))?;
            }
            let document = manifest::parse("manifest", &bytes)?;
            let Some(chosen) = document.choose()? else { return Ok((bytes.to_vec(), document)) };
            if !is_digest(&chosen.digest) {
                return Err(Error::NotWasm(format!("its index names a manifest by {:?}", chosen.digest)));
            }
            expected = Some(chosen.digest.clone());
            image = self.image.clone_with_digest(chosen.digest.clone());
        }
        Err(Error::NotWasm("its index leads to no manifest".to_owned()))
    }

    pub(super) async fn blob(
        &self,
        descriptor: &manifest::Descriptor,
        limit: u64,
        to: PathBuf,
    ) -> Result<(), Error> {
        if descriptor.size > limit {
            return Err(Error::TooLarge { what: "a blob of the image".to_owned(), limit_bytes: limit });
        }
        let file = tokio::fs::File::create(&to).await.map_err(Error::file("write", &to))?;
        let bounded = Bounded { file, left: limit };
        let wanted = OciDescriptor {
            digest: descriptor.digest.clone(),
            media_type: descriptor.media_type.clone(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            ..Default::default()
        };
        self.client.pull_blob(&self.image, &wanted, bounded).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &OciDistributionError) -> Error {
        let (name, why) = (self.name.clone(), error.to_string());
        match error {
            OciDistributionError::AuthenticationFailure(_) => Error::Denied { name, why },
            OciDistributionError::ImageManifestNotFoundError(_) => Error::NotFound(name),
            OciDistributionError::ServerError { code: 401 | 403, .. } => Error::Denied { name, why },
            OciDistributionError::ServerError { code: 404, .. } => Error::NotFound(name),
            OciDistributionError::RegistryError { envelope, .. }
                if envelope.errors.iter().any(|e| {
                    matches!(
                        e.code,
                        oci_client::errors::OciErrorCode::ManifestUnknown
                            | oci_client::errors::OciErrorCode::NameUnknown
                            | oci_client::errors::OciErrorCode::NotFound
                    )
                }) =>
            {
                Error::NotFound(name)
            }
            _ => Error::Registry { name, why },
        }
    }
}

fn reference(name: &Reference) -> oci_client::Reference {
    // Docker's name for its registry is not where it is served.
    let registry = if name.registry() == "docker.io" { "index.docker.io" } else { name.registry() };
    let (registry, repository) = (registry.to_owned(), name.repository().to_owned());
    match (name.digest(), name.tag()) {
        (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_owned()),
        (None, tag) => {
            oci_client::Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned())
        }
    }
}

/// Whether this registry is spoken to without TLS.
fn is_plain(registry: &str, allowed: &PlainHttp) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => registry,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    loopback
        || match allowed {
            PlainHttp::Loopback => false,
            PlainHttp::Registries(list) => list.iter().any(|entry| entry == registry || entry == host),
            PlainHttp::Always => true,
        }
}

/// A file that takes so many bytes and no more, whatever the registry sends.
struct Bounded {
    file: tokio::fs::File,
    left: u64,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            return std::task::Poll::Ready(Err(std::io::Error::other("the blob is larger than allowed")));
        }
        let written = std::pin::Pin::new(&mut self.file).poll_write(cx, bytes);
        if let std::task::Poll::Ready(Ok(n)) = &written {
            self.left -= *n as u64;
        }
        written
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls_unless_told() {
        let some = PlainHttp::Registries(vec!["r.example:5000".to_owned(), "plain.example".to_owned()]);
        for (registry, allowed, expected) in [
            ("127.0.0.1:5000", &PlainHttp::Loopback, true),
            ("127.9.9.9", &PlainHttp::Loopback, true),
            ("localhost:5000", &PlainHttp::Loopback, true),
            ("[::1]:5000", &PlainHttp::Loopback, true),
            ("localhost.example", &PlainHttp::Loopback, false),
            ("10.0.0.1:5000", &PlainHttp::Loopback, false),
            ("r.example:5000", &some, true),
            ("r.example:5001", &some, false),
            ("plain.example:80", &some, true),
            ("docker.io", &PlainHttp::Always, true),
        ] {
            assert_eq!(is_plain(registry, allowed), expected, "{registry}");
        }
    }
}

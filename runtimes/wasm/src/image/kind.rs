//! What an image in a registry holds, without fetching it.

use super::manifest::{self, Guest};
use super::pull::Puller;
use super::{Error, MAX_JSON_BYTES, PullOptions, Reference};

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// A WebAssembly guest: a layer of that media type, or an entry point that is a `.wasm` file.
    Wasm,
    /// Anything else: the root file system of a container.
    Container,
}

/// Asks the registry for the image's manifest, and for its configuration where the media types do not tell.
///
/// *Errors*: the registry cannot be reached, refuses, or has no such image.
pub async fn kind_of(name: &str, options: &PullOptions) -> Result<ImageKind, Error> {
    let name: Reference = name.parse()?;
    let puller = Puller::new(&name, options)?;
    let document = match puller.manifest().await {
        Ok((_, document)) => document,
        // An index of several platforms, none of which is ours.
        Err(Error::NotWasm(_)) => return Ok(ImageKind::Container),
        Err(error) => return Err(error),
    };
    if document.guest(&manifest::RunConfig::default()).is_ok_and(|guest| matches!(guest, Guest::Layer(_))) {
        return Ok(ImageKind::Wasm);
    }
    let Some(config) = &document.config else { return Ok(ImageKind::Container) };
    let directory = tempfile::tempdir().map_err(Error::file("make a directory in", &std::env::temp_dir()))?;
    let file = directory.path().join("config");
    puller.blob(config, MAX_JSON_BYTES, file.clone()).await?;
    let bytes = super::ingest::read_small(&file, MAX_JSON_BYTES)?;
    let is_wasm = document.run_config(&bytes).and_then(|run| document.guest(&run)).is_ok();
    Ok(if is_wasm { ImageKind::Wasm } else { ImageKind::Container })
}

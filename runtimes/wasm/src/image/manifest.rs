//! OCI and Docker manifests, and which part of an image is the guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Error, MAX_LAYERS};

/// Media type of a WebAssembly layer. Source: CNCF TAG Runtime, "Wasm OCI Artifact layout".
pub(crate) const WASM_LAYER: &str = "application/wasm";

/// Media type of the artifact's configuration. Source: as [`WASM_LAYER`].
pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// Media type of an OCI manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Media types that a registry may answer with.
pub(crate) const ACCEPTED: [&str; 4] = [
    OCI_MANIFEST,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Layers of WebAssembly, ours and what came before the common layout.
const WASM_LAYERS: [&str; 2] = [WASM_LAYER, "application/vnd.wasm.content.layer.v1+wasm"];

/// One blob by its digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// For which machine a manifest is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
}

/// A manifest, or an index of manifests: whichever of the lists is there tells.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Document {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The part of an image configuration that matters to a guest.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RunConfig {
    #[serde(deserialize_with = "or_empty")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ImageConfig {
    #[serde(deserialize_with = "or_empty")]
    config: RunConfig,
}

/// `null` is what Go writes for an empty list or map.
fn or_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Where the guest is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Guest {
    /// A layer is the WebAssembly file itself.
    Layer(Descriptor),
    /// A file of the image's root file system.
    Path(String),
}

pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Document, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what.to_owned(), source })
}

impl Document {
    /// The manifest to take from an index; `None` when this is a manifest itself.
    pub(crate) fn choose(&self) -> Result<Option<&Descriptor>, Error> {
        if self.manifests.is_empty() {
            return Ok(None);
        }
        let is_wasm = |platform: &Platform| {
            platform.architecture.starts_with("wasm") || platform.os.starts_with("wasi")
        };
        let mut wasm = self.manifests.iter().filter(|m| m.platform.as_ref().is_some_and(is_wasm));
        match (wasm.next(), self.manifests.as_slice()) {
            (Some(descriptor), _) | (None, [descriptor]) => Ok(Some(descriptor)),
            (None, several) => {
                let platforms: Vec<String> = several
                    .iter()
                    .take(10)
                    .filter_map(|m| m.platform.as_ref())
                    .map(|p| format!("{}/{}", p.os, p.architecture))
                    .collect();
                Err(Error::NotWasm(format!("the index has no wasm platform, only {}", platforms.join(", "))))
            }
        }
    }

    /// How to run the image: `config` are the bytes of its configuration blob.
    pub(crate) fn run_config(&self, config: &[u8]) -> Result<RunConfig, Error> {
        let is_artifact = self.config.as_ref().is_some_and(|c| c.media_type == WASM_CONFIG);
        if is_artifact || config.is_empty() {
            return Ok(RunConfig::default());
        }
        let config: ImageConfig = serde_json::from_slice(config)
            .map_err(|source| Error::Json { what: "image configuration".to_owned(), source })?;
        Ok(config.config)
    }

    /// Which part of the image is the guest.
    pub(crate) fn guest(&self, run: &RunConfig) -> Result<Guest, Error> {
        if self.layers.len() > MAX_LAYERS {
            return Err(Error::NotWasm(format!("it has more than {MAX_LAYERS} layers")));
        }
        let mut wasm = self.layers.iter().filter(|layer| WASM_LAYERS.contains(&layer.media_type.as_str()));
        match (wasm.next(), wasm.next()) {
            (Some(only), None) => return Ok(Guest::Layer(only.clone())),
            (Some(_), Some(_)) => {
                return Err(Error::NotWasm("it has more than one WebAssembly layer".to_owned()));
            }
            (None, _) => {}
        }
        let program = run.entrypoint.first().or(run.cmd.first());
        match program {
            Some(path) if path.ends_with(".wasm") => Ok(Guest::Path(in_root(&run.working_dir, path))),
            Some(path) => Err(Error::NotWasm(format!("its entry point {path:?} is not a .wasm file"))),
            None => Err(Error::NotWasm("it has no WebAssembly layer and no entry point".to_owned())),
        }
    }
}

/// An absolute path in the image, without `.`, `..` and doubled slashes.
pub(crate) fn in_root(working_dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{working_dir}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The manifest of a lone WebAssembly file, so that it has an identity like any other image.
pub(crate) fn of_wasm(digest: &str, size: u64, config: &Descriptor) -> Document {
    Document {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: Some(config.clone()),
        layers: vec![Descriptor {
            media_type: WASM_LAYER.to_owned(),
            digest: digest.to_owned(),
            size,
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(types: &[&str]) -> Document {
        let layer = |t: &&str| Descriptor { media_type: (*t).to_owned(), ..Default::default() };
        Document { layers: types.iter().map(layer).collect(), ..Default::default() }
    }

    #[test]
    fn the_guest_is_the_wasm_layer_or_the_entry_point() {
        let run = |entrypoint: &[&str], cmd: &[&str], dir: &str| RunConfig {
            entrypoint: entrypoint.iter().map(|s| (*s).to_owned()).collect(),
            cmd: cmd.iter().map(|s| (*s).to_owned()).collect(),
            working_dir: dir.to_owned(),
            ..Default::default()
        };
        let tar = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        for (types, run, expected) in [
            (vec![WASM_LAYER], run(&[], &[], ""), Ok("layer")),
            (vec![tar, WASM_LAYER], run(&[], &[], ""), Ok("layer")),
            (vec![WASM_LAYER, WASM_LAYER], run(&[], &[], ""), Err(())),
            (vec![tar], run(&["/app.wasm"], &[], ""), Ok("app.wasm")),
            (vec![tar], run(&[], &["./app.wasm", "x"], "/srv"), Ok("srv/app.wasm")),
            (vec![tar], run(&["../../app.wasm"], &[], "/srv"), Ok("app.wasm")),
            (vec![tar], run(&["/bin/sh"], &["app.wasm"], ""), Err(())),
            (vec![tar], run(&[], &[], ""), Err(())),
        ] {
            let found = layers(&types).guest(&run);
            match (found, expected) {
                (Ok(Guest::Layer(_)), Ok("layer")) => {}
                (Ok(Guest::Path(path)), Ok(expected)) => assert_eq!(path, expected),
                (Err(Error::NotWasm(_)), Err(())) => {}
                (found, expected) => panic!("{types:?}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn an_index_gives_its_wasm_manifest_or_its_only_one() {
        let entry = |os: &str, architecture: &str| Descriptor {
            digest: format!("{os}/{architecture}"),
            platform: Some(Platform { os: os.to_owned(), architecture: architecture.to_owned() }),
            ..Default::default()
        };
        for (entries, expected) in [
            (vec![entry("linux", "amd64"), entry("wasip1", "wasm")], Some("wasip1/wasm")),
            (vec![entry("linux", "amd64")], Some("linux/amd64")),
            (vec![entry("linux", "amd64"), entry("linux", "arm64")], None),
        ] {
            let index = Document { manifests: entries, ..Default::default() };
            assert_eq!(index.choose().ok().flatten().map(|d| d.digest.as_str()), expected);
        }
        assert_eq!(Document::default().choose().unwrap(), None);
    }

    #[test]
    fn docker_configurations_with_nulls_are_read() {
        let document = layers(&[]);
        let run = document
            .run_config(
                br#"{"config":{"Entrypoint":["/a.wasm"],"Cmd":null,"Env":["A=b"],"WorkingDir":"/w"}}"#,
            )
            .unwrap();
        assert_eq!((run.entrypoint, run.cmd, run.env), (vec!["/a.wasm".into()], vec![], vec!["A=b".into()]));
        assert_eq!(document.run_config(br#"{"config":null}"#).unwrap(), RunConfig::default());
    }
}

//! Container images in files: an OCI layout (a directory, or a tar of one) or what `docker save` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use wherry_runtimes::files::open_file;

/// Files of an archive, at most. Source: 127 layers and a few files for each of some images.
const MAX_FILES: usize = 4096;
/// The largest file of an archive, in bytes.
const MAX_FILE_BYTES: u64 = 32 << 30;
/// The largest manifest, index or configuration, in bytes. Source: registries' own limit for manifests.
pub(super) const MAX_JSON_BYTES: u64 = 4 << 20;

/// Where a layout's index may carry an image's name, best first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A file that is no container image, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file could not be read or written.
    #[error("cannot {step} {}", path.display())]
    File {
        /// `open`, `read`, `write`.
        step: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Neither a layout nor what `docker save` writes.
    #[error("{} is neither an OCI layout nor an archive that `docker save` wrote", .0.display())]
    UnknownFormat(PathBuf),
    /// A part of the image cannot be read.
    #[error("{name} of the image is not valid JSON")]
    Json {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A part is missing, too large, or named in a way that no image does.
    #[error("the image is not usable: {0}")]
    Invalid(String),
}

impl ArchiveError {
    pub(super) fn file(step: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File { step, path: path.to_owned(), source }
    }
}

/// One blob by its digest, as manifests name it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// A manifest or an index.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Vec<Descriptor>,
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Where the files of an archive are.
enum Files {
    Directory(PathBuf),
    Unpacked { directory: TempDir, names: BTreeMap<String, PathBuf> },
}

/// An image of an archive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) names: Vec<String>,
    pub(super) target: Descriptor,
}

/// A container image in files.
pub(super) struct Archive {
    files: Files,
    /// Blobs that are not below `blobs/` by their digest.
    blobs: BTreeMap<String, PathBuf>,
    pub(super) images: Vec<Found>,
}

impl Archive {
    /// Opens what is at `path`; an archive is unpacked into a directory below `scratch` that goes with the answer.
    /// Blocking.
    pub(super) fn open(path: &Path, scratch: &Path) -> Result<Self, ArchiveError> {
        let metadata = std::fs::metadata(path).map_err(|e| ArchiveError::file("open", path, e))?;
        let files =
            if metadata.is_dir() { Files::Directory(path.to_owned()) } else { unpack(path, scratch)? };
        let mut archive = Self { files, blobs: BTreeMap::new(), images: Vec::new() };
        if archive.path("index.json").is_some_and(|index| index.is_file()) {
            archive.read_layout()?;
        } else if archive.path("manifest.json").is_some_and(|manifest| manifest.is_file()) {
            archive.read_docker(scratch)?;
        } else {
            return Err(ArchiveError::UnknownFormat(path.to_owned()));
        }
        if archive.images.is_empty() {
            return Err(ArchiveError::Invalid("there is no image in it".to_owned()));
        }
        Ok(archive)
    }

    /// The file that holds a blob, when it is here.
    pub(super) fn blob(&self, digest: &str) -> Result<Option<PathBuf>, ArchiveError> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        let hex = hex.ok_or_else(|| ArchiveError::Invalid(format!("it names a blob by {digest:?}")))?;
        let path = match self.blobs.get(digest) {
            Some(path) => Some(path.clone()),
            None => self.path(&format!("blobs/sha256/{hex}")),
        };
        Ok(path.filter(|path| path.is_file()))
    }

    /// A manifest or index.
    pub(super) fn document(&self, digest: &str) -> Result<Option<Document>, ArchiveError> {
        let Some(path) = self.blob(digest)? else { return Ok(None) };
        parse(digest, &read_small(&path)?).map(Some)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        match &self.files {
            Files::Directory(directory) => Some(directory.join(name)),
            Files::Unpacked { names, .. } => names.get(name).cloned(),
        }
    }

    fn read_layout(&mut self) -> Result<(), ArchiveError> {
        let Some(path) = self.path("index.json") else { return Ok(()) };
        let index: Document = parse("index.json", &read_small(&path)?)?;
        for target in index.manifests {
            let annotations = target.annotations.clone().unwrap_or_default();
            let name = NAME_ANNOTATIONS.iter().find_map(|key| annotations.get(*key)).cloned();
            // A layout may say the tag alone, which names nothing.
            let names = name.filter(|name| name.contains([':', '/', '@'])).into_iter().collect();
            self.images.push(Found { names, target });
        }
        Ok(())
    }

    /// Makes the manifests that `docker save` leaves out.
    fn read_docker(&mut self, scratch: &Path) -> Result<(), ArchiveError> {
        let Some(path) = self.path("manifest.json") else { return Ok(()) };
        let images: Vec<DockerImage> = parse("manifest.json", &read_small(&path)?)?;
        let made = match &self.files {
            Files::Unpacked { directory, .. } => directory.path().to_owned(),
            Files::Directory(_) => scratch.to_owned(),
        };
        for image in images {
            let config = self.take(&image.config, DOCKER_CONFIG)?;
            let layers = image.layers.iter().map(|name| self.take(name, DOCKER_LAYER));
            let layers = layers.collect::<Result<Vec<_>, _>>()?;
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": layers,
            })
            .to_string();
            let hex = hex::encode(Sha256::digest(manifest.as_bytes()));
            let path = made.join(format!("manifest-{hex}"));
            write_file(&path, manifest.as_bytes())?;
            let digest = format!("sha256:{hex}");
            self.blobs.insert(digest.clone(), path);
            let size = u64::try_from(manifest.len()).unwrap_or(u64::MAX);
            let target =
                Descriptor { media_type: DOCKER_MANIFEST.to_owned(), digest, size, annotations: None };
            self.images.push(Found { names: image.repo_tags.unwrap_or_default(), target });
        }
        Ok(())
    }

    /// A file that is named in an archive of `docker save`, from now on found by its digest.
    fn take(&mut self, name: &str, media_type: &str) -> Result<Descriptor, ArchiveError> {
        let missing = || ArchiveError::Invalid(format!("{name:?} is not in the archive"));
        let normal = normal(name).ok_or_else(missing)?;
        let path = self.path(&normal).ok_or_else(missing)?;
        let mut file = open(&path)?;
        let (mut hash, mut size, mut head) = (Sha256::new(), 0_u64, None);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = file.read(&mut buffer).map_err(|e| ArchiveError::file("read", &path, e))?;
            head.get_or_insert_with(|| buffer[..n.min(2)].to_vec());
            if n == 0 {
                break;
            }
            size += n as u64;
            hash.update(&buffer[..n]);
        }
        let is_gzip = head.is_some_and(|head| head == [0x1f, 0x8b]);
        let suffix = if is_gzip && media_type == DOCKER_LAYER { ".gzip" } else { "" };
        let digest = format!("sha256:{}", hex::encode(hash.finalize()));
        self.blobs.insert(digest.clone(), path);
        Ok(Descriptor { media_type: format!("{media_type}{suffix}"), digest, size, annotations: None })
    }
}

/// The name without `.` and doubled slashes; nothing when it leads out.
fn normal(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Takes the files out of a tar, each under a number: no name in it becomes a path here.
fn unpack(path: &Path, scratch: &Path) -> Result<Files, ArchiveError> {
    let directory = tempfile::Builder::new()
        .prefix("image-")
        .tempdir_in(scratch)
        .map_err(|e| ArchiveError::file("make a directory in", scratch, e))?;
    let mut file = BufReader::new(File::open(path).map_err(|e| ArchiveError::file("open", path, e))?);
    let mut head = [0; 2];
    let read = file.read(&mut head).map_err(|e| ArchiveError::file("read", path, e))?;
    let whole = std::io::Cursor::new(head[..read].to_vec()).chain(file);
    let reader: Box<dyn Read> =
        if head == [0x1f, 0x8b] { Box::new(GzDecoder::new(whole)) } else { Box::new(whole) };
    let not_tar = |_| ArchiveError::UnknownFormat(path.to_owned());
    let mut archive = tar::Archive::new(reader);
    let (mut names, mut links) = (BTreeMap::new(), BTreeMap::new());
    for entry in archive.entries().map_err(not_tar)? {
        let mut entry = entry.map_err(not_tar)?;
        let Some(name) = normal(&String::from_utf8_lossy(&entry.path_bytes())) else { continue };
        if names.len() + links.len() >= MAX_FILES {
            return Err(ArchiveError::Invalid(format!("it has more than {MAX_FILES} files")));
        }
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            // A hard link names a member, a symbolic one leads from where it is.
            let base = Path::new(&name).parent().filter(|_| kind.is_symlink()).unwrap_or(Path::new(""));
            let target = target.and_then(|target| normal(base.join(target).to_str()?));
            if let Some(target) = target {
                links.insert(name, target);
            }
            continue;
        }
        if !kind.is_file() {
            continue;
        }
        if entry.size() > MAX_FILE_BYTES {
            return Err(ArchiveError::Invalid(format!("{name} is larger than {MAX_FILE_BYTES} bytes")));
        }
        let to = directory.path().join(names.len().to_string());
        let mut out = File::create_new(&to).map_err(|e| ArchiveError::file("make", &to, e))?;
        std::io::copy(&mut entry, &mut out).map_err(|e| ArchiveError::file("unpack to", &to, e))?;
        names.insert(name, to);
    }
    for (name, target) in links {
        if let Some(path) = names.get(&target).cloned() {
            names.entry(name).or_insert(path);
        }
    }
    Ok(Files::Unpacked { directory, names })
}

fn open(path: &Path) -> Result<File, ArchiveError> {
    path.canonicalize().and_then(|path| open_file(&path)).map_err(|e| ArchiveError::file("open", path, e))
}

fn read_small(path: &Path) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    let mut file = open(path)?.take(MAX_JSON_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(|e| ArchiveError::file("read", path, e))?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(ArchiveError::Invalid(format!(
            "{} is larger than {MAX_JSON_BYTES} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|source| ArchiveError::Json { name: name.to_owned(), source })
}

/// Writes a file and the directories above it.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::file("write", path, source);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    File::create(path).and_then(|mut file| file.write_all(bytes)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        for (name, target) in links {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, name, target).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn names_never_lead_out() {
        for (name, expected) in [
            ("a/b", Some("a/b")),
            ("./a//b", Some("a/b")),
            ("a/../b", Some("b")),
            ("../a", None),
            ("/etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(normal(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_docker_saved_gets_a_manifest_and_its_links_are_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let manifest =
            br#"[{"Config":"c.json","RepoTags":["box:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
        let tar = tar_of(
            &[("manifest.json", manifest), ("c.json", b"{}"), ("a/layer.tar", b"layer")],
            &[("b/layer.tar", "../a/layer.tar"), ("c/layer.tar", "/etc/passwd")],
        );
        let path = scratch.path().join("saved.tar");
        std::fs::write(&path, tar).unwrap();
        let archive = Archive::open(&path, scratch.path()).unwrap();
        assert_eq!(archive.images[0].names, ["box:1"]);
        let document = archive.document(&archive.images[0].target.digest).unwrap().unwrap();
        assert_eq!(document.layers.len(), 2);
        assert_eq!(document.layers[0].digest, document.layers[1].digest);
        assert_eq!(document.layers[0].media_type, DOCKER_LAYER);
        let layer = archive.blob(&document.layers[0].digest).unwrap().unwrap();
        assert_eq!(std::fs::read(layer).unwrap(), b"layer");
        assert!(archive.blob("sha256:../../x").is_err());
    }

    #[test]
    fn a_layout_names_its_images_and_anything_else_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        super::super::pause::write_layout(&scratch.path().join("layout")).unwrap();
        let archive = Archive::open(&scratch.path().join("layout"), scratch.path()).unwrap();
        assert_eq!(archive.images[0].names, [super::super::PAUSE_IMAGE]);
        assert!(archive.document(&archive.images[0].target.digest).unwrap().unwrap().config.is_some());
        for content in [&b"text"[..], b"", &tar_of(&[("x", b"y")], &[])] {
            let path = scratch.path().join("other");
            std::fs::write(&path, content).unwrap();
            let refused = Archive::open(&path, scratch.path());
            assert!(matches!(refused, Err(ArchiveError::UnknownFormat(_))));
        }
    }
}

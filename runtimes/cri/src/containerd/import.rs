//! Images from files into containerd, where its CRI finds them.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, Image, UpdateImageRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use wherry_runtimes::{ImageService, ImageSpec};

use super::archive::{Archive, ArchiveError, Descriptor};
use super::{PAUSE_IMAGE, in_namespace, labels, pause, upload};
use crate::Client;
use crate::code::from_status;

/// How long containerd's CRI may take to take notice of an image.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);
/// Levels of indexes above a manifest, at most.
const MAX_DEPTH: usize = 4;

/// An image could not be brought in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Nobody said what the image is called.
    #[error("the image has no name; give it one with --name")]
    NoName,
    /// A name for several images.
    #[error("there are {0} images in it, and only one name")]
    Several(usize),
    /// containerd refused.
    #[error("containerd refused to {step}: {source}")]
    Refused {
        /// What was asked.
        step: &'static str,
        /// Why.
        #[source]
        source: wherry_runtimes::Error,
    },
    /// containerd has the image, but its CRI does not show it.
    #[error("containerd took {name}, but its CRI does not show it after {} s", NOTICE_TIMEOUT.as_secs())]
    Unnoticed {
        /// Which.
        name: String,
    },
    /// The work was ended.
    #[error("the archive was not read to its end")]
    Interrupted,
}

/// An image that was brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The full name.
    pub name: String,
    /// The digest of its manifest or index.
    pub digest: String,
    /// Bytes of its blobs.
    pub size_bytes: u64,
}

fn refused(step: &'static str) -> impl Fn(Status) -> ImportError {
    move |status| ImportError::Refused { step, source: from_status(&status) }
}

impl Client {
    /// Brings the images of an OCI layout (a directory or a tar) or of an archive of `docker save` into containerd, under
    /// the names that they carry, or under `name`. Archives are unpacked below `scratch`.
    ///
    /// # Errors
    /// The file is no image, it has no name, containerd refuses it. What was brought in before stays.
    ///
    /// *Cancellation*: leaves at most blobs that containerd collects within the hour.
    pub async fn import(
        &self,
        path: &Path,
        name: Option<&str>,
        scratch: &Path,
    ) -> Result<Vec<Imported>, ImportError> {
        let (from, into) = (path.to_owned(), scratch.to_owned());
        let archive = tokio::task::spawn_blocking(move || Archive::open(&from, &into))
            .await
            .map_err(|_| ImportError::Interrupted)??;
        let mut wanted: Vec<(String, Descriptor)> = Vec::new();
        match name {
            Some(_) if archive.images.len() > 1 => return Err(ImportError::Several(archive.images.len())),
            Some(name) => wanted.extend(archive.images.iter().map(|i| (full_name(name), i.target.clone()))),
            None => {
                for image in &archive.images {
                    wanted.extend(image.names.iter().map(|name| (full_name(name), image.target.clone())));
                }
            }
        }
        if wanted.is_empty() {
            return Err(ImportError::NoName);
        }
        let lease = self.lease().await?;
        let imported = self.import_under(&archive, wanted, &lease).await;
        self.end_lease(&lease).await;
        let imported = imported?;
        for image in &imported {
            self.wait_noticed(&image.name).await?;
        }
        Ok(imported)
    }

    /// Brings in the image of pod sandboxes, unless it is here.
    ///
    /// # Errors
    /// As [`Client::import`].
    pub async fn import_pause(&self, scratch: &Path) -> Result<(), ImportError> {
        let spec = ImageSpec { image: PAUSE_IMAGE.to_owned(), ..ImageSpec::default() };
        if matches!(self.image_status(&spec).await, Ok(Some(_))) {
            return Ok(());
        }
        let layout = tempfile::Builder::new()
            .prefix("pause-")
            .tempdir_in(scratch)
            .map_err(|source| ArchiveError::file("make a directory in", scratch, source))?;
        pause::write_layout(layout.path())?;
        self.import(layout.path(), None, scratch).await.map(drop)
    }

    async fn import_under(
        &self,
        archive: &Archive,
        wanted: Vec<(String, Descriptor)>,
        lease: &str,
    ) -> Result<Vec<Imported>, ImportError> {
        let mut imported = Vec::new();
        let mut written = HashSet::new();
        for (name, target) in wanted {
            let size_bytes = self.write_tree(archive, &target, lease, &mut written).await?;
            put_image(self.channel(), &name, &target).await?;
            imported.push(Imported { name, digest: target.digest, size_bytes });
        }
        Ok(imported)
    }

    /// Writes what an image consists of, the leaves first: each blob holds those below it by its labels.
    async fn write_tree(
        &self,
        archive: &Archive,
        target: &Descriptor,
        lease: &str,
        written: &mut HashSet<String>,
    ) -> Result<u64, ImportError> {
        let mut size_bytes = 0;
        for (blob, held) in tree(archive, target)? {
            size_bytes += blob.size;
            if !written.insert(blob.digest.clone()) {
                continue;
            }
            let file = archive.blob(&blob.digest)?.ok_or_else(|| missing(&blob))?;
            let write = upload::write_blob(self.channel(), lease, &blob, &file, held);
            write.await.map_err(refused("take a blob"))?;
        }
        Ok(size_bytes)
    }

    async fn lease(&self) -> Result<String, ImportError> {
        let labels = labels([("containerd.io/gc.expire", &in_an_hour())]);
        let request = in_namespace(CreateRequest { id: String::new(), labels }, None);
        let request = request.map_err(refused("lease room"))?;
        let answer = LeasesClient::new(self.channel()).create(request).await;
        let lease = answer.map_err(refused("lease room"))?.into_inner().lease;
        Ok(lease.unwrap_or_default().id)
    }

    async fn end_lease(&self, lease: &str) {
        let Ok(request) = in_namespace(DeleteRequest { id: lease.to_owned(), sync: false }, None) else {
            return;
        };
        if let Err(error) = LeasesClient::new(self.channel()).delete(request).await {
            tracing::debug!(%error, "a lease of containerd ends by itself");
        }
    }

    async fn wait_noticed(&self, name: &str) -> Result<(), ImportError> {
        let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let noticed = async {
            while !matches!(self.image_status(&spec).await, Ok(Some(_))) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(NOTICE_TIMEOUT, noticed)
            .await
            .map_err(|_| ImportError::Unnoticed { name: name.to_owned() })
    }
}

fn missing(blob: &Descriptor) -> ArchiveError {
    ArchiveError::Invalid(format!("{} is not in it", blob.digest))
}

/// A blob and its labels.
type Labelled = (Descriptor, HashMap<String, String>);

/// The blobs of an image, each after those that it names, with the labels by which containerd's collector knows that.
///
/// Manifests of an index that are not here belong to other platforms and are passed over.
fn tree(archive: &Archive, target: &Descriptor) -> Result<Vec<Labelled>, ArchiveError> {
    let mut blobs = Vec::new();
    collect(archive, target, MAX_DEPTH, &mut blobs)?;
    if blobs.iter().all(|(blob, _)| is_document(blob)) {
        return Err(ArchiveError::Invalid("none of its manifests is in it".to_owned()));
    }
    Ok(blobs)
}

fn is_document(blob: &Descriptor) -> bool {
    ["manifest.v1+json", "manifest.v2+json", "index.v1+json", "manifest.list.v2+json"]
        .iter()
        .any(|end| blob.media_type.ends_with(end))
}

fn collect(
    archive: &Archive,
    target: &Descriptor,
    depth: usize,
    blobs: &mut Vec<(Descriptor, HashMap<String, String>)>,
) -> Result<(), ArchiveError> {
    if depth == 0 {
        return Err(ArchiveError::Invalid(format!("its indexes are more than {MAX_DEPTH} deep")));
    }
    let document = archive.document(&target.digest)?.ok_or_else(|| missing(target))?;
    let mut held = HashMap::new();
    let mut hold = |key: String, child: &Descriptor| {
        held.insert(format!("containerd.io/gc.ref.content.{key}"), child.digest.clone());
    };
    for (n, child) in document.manifests.iter().enumerate() {
        if archive.blob(&child.digest)?.is_some() {
            collect(archive, child, depth - 1, blobs)?;
            hold(format!("m.{n}"), child);
        }
    }
    if let Some(config) = &document.config {
        blobs.push((config.clone(), HashMap::new()));
        hold("config".to_owned(), config);
    }
    for (n, layer) in document.layers.iter().enumerate() {
        blobs.push((layer.clone(), HashMap::new()));
        hold(format!("l.{n}"), layer);
    }
    blobs.push((target.clone(), held));
    Ok(())
}

async fn put_image(channel: Channel, name: &str, target: &Descriptor) -> Result<(), ImportError> {
    let size = i64::try_from(target.size).unwrap_or(i64::MAX);
    let image = Image {
        name: name.to_owned(),
        labels: labels([("io.cri-containerd.image", "managed")]),
        target: Some(containerd_client::types::Descriptor {
            media_type: target.media_type.clone(),
            digest: target.digest.clone(),
            size,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut service = ImagesClient::new(channel);
    let request = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
    let request = in_namespace(request, None).map_err(refused("name the image"))?;
    match service.create(request).await {
        Ok(_) => return Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(refused("name the image")(status)),
    }
    let request = UpdateImageRequest { image: Some(image), ..Default::default() };
    let request = in_namespace(request, None).map_err(refused("name the image anew"))?;
    service.update(request).await.map_err(refused("name the image anew"))?;
    Ok(())
}

/// The name as containerd's CRI looks for it: registry, repository, tag. Source: Docker's reference rules.
fn full_name(name: &str) -> String {
    let (first, has_slash) = match name.split_once('/') {
        Some((first, _)) => (first, true),
        None => ("", false),
    };
    let has_registry = has_slash && (first.contains(['.', ':']) || first == "localhost");
    let mut full = match (has_registry, has_slash) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if !full.contains('@') && !last.contains(':') {
        full.push_str(":latest");
    }
    full
}

/// RFC 3339, as the collector reads it.
fn in_an_hour() -> String {
    let at = std::time::SystemTime::now() + Duration::from_secs(3600);
    let seconds = at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_full_as_cri_does() {
        for (name, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("test/box:v1", "docker.io/test/box:v1"),
            ("localhost/box", "localhost/box:latest"),
            ("127.0.0.1:5000/box", "127.0.0.1:5000/box:latest"),
            ("wherry.local/pause:1", "wherry.local/pause:1"),
            ("box@sha256:00", "docker.io/library/box@sha256:00"),
        ] {
            assert_eq!(full_name(name), expected);
        }
    }

    #[test]
    fn a_manifest_comes_after_its_blobs_and_holds_them() {
        let scratch = tempfile::tempdir().unwrap();
        pause::write_layout(scratch.path()).unwrap();
        let archive = Archive::open(scratch.path(), scratch.path()).unwrap();
        let blobs = tree(&archive, &archive.images[0].target).unwrap();
        assert_eq!(blobs.len(), 3);
        assert_eq!(blobs[2].0, archive.images[0].target);
        let held = &blobs[2].1;
        assert_eq!(held["containerd.io/gc.ref.content.config"], blobs[0].0.digest);
        assert_eq!(held["containerd.io/gc.ref.content.l.0"], blobs[1].0.digest);
    }
}

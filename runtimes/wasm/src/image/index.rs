//! The index of the store: which images are here, and by which names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Reference;

/// One image that the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageRecord {
    /// Digest of the manifest.
    pub id: String,
    /// Full names with tag, such as `docker.io/library/hello:v1`.
    pub names: Vec<String>,
    /// Full names with digest, such as `docker.io/library/hello@sha256:…`.
    pub digests: Vec<String>,
    /// Digest of the WebAssembly file: what is compiled and run.
    pub wasm_digest: String,
    /// Size of the WebAssembly file, in bytes.
    pub size_bytes: u64,
    /// The image's entry point, if it says one.
    pub entrypoint: Vec<String>,
    /// The image's command, if it says one.
    pub cmd: Vec<String>,
    /// The image's environment, as `NAME=value`.
    pub env: Vec<String>,
    /// The image's working directory.
    pub working_dir: String,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it came here, in seconds since the epoch.
    pub created_at_seconds: u64,
}

/// All images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Index {
    pub(crate) images: Vec<ImageRecord>,
}

impl Index {
    /// By id (whole, or at least 12 digits of it), or by a name or digest in any of its spellings.
    pub(crate) fn find(&self, wanted: &str) -> Option<&ImageRecord> {
        let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let by_id = |image: &&ImageRecord| {
            hex.len() >= 12 && image.id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(hex))
        };
        if let Some(image) = self.images.iter().find(by_id) {
            return Some(image);
        }
        let reference: Reference = wanted.parse().ok()?;
        if let Some(digest) = reference.digest() {
            let by_digest = reference.with_digest(digest);
            return self.images.iter().find(|image| image.digests.contains(&by_digest));
        }
        let name = reference.to_string();
        self.images.iter().find(|image| image.names.contains(&name))
    }

    /// Puts the image in; its names leave whatever had them. The same content keeps the names it had.
    pub(crate) fn put(&mut self, mut record: ImageRecord) -> ImageRecord {
        for other in &mut self.images {
            other.names.retain(|name| !record.names.contains(name));
        }
        if let Some(at) = self.images.iter().position(|image| image.id == record.id) {
            let old = self.images.remove(at);
            record.names.extend(old.names);
            record.digests.extend(old.digests);
        }
        record.names.sort();
        record.names.dedup();
        record.digests.sort();
        record.digests.dedup();
        self.images.push(record.clone());
        record
    }

    /// Takes a name away, and the image with its last name.
    pub(crate) fn remove_name(&mut self, wanted: &str) -> bool {
        let Some(id) = self.find(wanted).map(|image| image.id.clone()) else { return false };
        let name = wanted.parse::<Reference>().ok().filter(|r| r.digest().is_none()).map(|r| r.to_string());
        let Some(image) = self.images.iter_mut().find(|image| image.id == id) else { return false };
        match name {
            Some(name) if image.names.contains(&name) && image.names.len() > 1 => {
                image.names.retain(|n| *n != name);
            }
            _ => self.images.retain(|image| image.id != id),
        }
        true
    }

    /// Takes the image away with all its names.
    pub(crate) fn remove_image(&mut self, wanted: &str) -> bool {
        let Some(id) = self.find(wanted).map(|image| image.id.clone()) else { return false };
        self.images.retain(|image| image.id != id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: char, names: &[&str]) -> ImageRecord {
        let id = format!("sha256:{}", id.to_string().repeat(64));
        ImageRecord {
            names: names.iter().map(|n| n.parse::<Reference>().unwrap().to_string()).collect(),
            digests: names.iter().map(|n| n.parse::<Reference>().unwrap().with_digest(&id)).collect(),
            id,
            ..Default::default()
        }
    }

    #[test]
    fn images_are_found_by_any_spelling_of_name_digest_and_id() {
        let mut index = Index::default();
        let a = index.put(record('a', &["hello:v1"]));
        index.put(record('b', &["r.example/x"]));
        for wanted in
            ["hello:v1", "docker.io/library/hello:v1", &a.id, &a.id[7..], "aaaaaaaaaaaa", &a.digests[0]]
        {
            assert_eq!(index.find(wanted).map(|i| &i.id), Some(&a.id), "{wanted}");
        }
        for wanted in ["hello", "hello:v2", "aaaa", "x", ""] {
            assert_eq!(index.find(wanted), None, "{wanted}");
        }
    }

    #[test]
    fn a_name_moves_to_the_new_image_and_the_old_one_stays_by_id() {
        let mut index = Index::default();
        let old = index.put(record('a', &["hello"]));
        let new = index.put(record('b', &["hello"]));
        assert_eq!(index.find("hello").unwrap().id, new.id);
        assert!(index.find(&old.id).unwrap().names.is_empty());
    }

    #[test]
    fn the_same_content_collects_names_and_goes_with_the_last() {
        let mut index = Index::default();
        index.put(record('a', &["one"]));
        let both = index.put(record('a', &["two"]));
        assert_eq!(both.names.len(), 2);
        assert!(index.remove_name("one"));
        assert!(index.find("two").is_some());
        assert!(index.remove_name("two"));
        assert!(index.images.is_empty());
        assert!(!index.remove_name("two"));
    }
}

//! Loading from the local disk: a `.wasm` file, an OCI layout directory, or a tar of one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ingest::{Ingested, digest_of, expect_digest, ingest, read_small};
use super::layers::{self, Tree};
use super::manifest::{self, Descriptor, Document, Guest, RunConfig, WASM_CONFIG};
use super::reference::is_digest;
use super::{
    Error, ImageRecord, ImageStore, MAX_JSON_BYTES, MAX_LAYER_BYTES, MAX_LAYERS, MAX_WASM_BYTES, Reference,
};

/// Where a layout's annotations may carry the image's name, best first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// First bytes of every WebAssembly file.
pub(crate) const WASM_MAGIC: [u8; 4] = *b"\0asm";

/// A file's content by its digest: a layout directory, or what a pull brought.
pub(crate) trait Blobs {
    /// The path of the blob's file; its content is not yet checked.
    fn path(&self, digest: &str) -> Result<PathBuf, Error>;
}

struct Layout<'a>(&'a Path);

impl Blobs for Layout<'_> {
    fn path(&self, digest: &str) -> Result<PathBuf, Error> {
        if !is_digest(digest) {
            return Err(Error::NotWasm(format!("it names a blob by {digest:?}")));
        }
        Ok(self.0.join("blobs").join(digest.replace(':', "/")))
    }
}

impl ImageStore {
    /// Loads the image at `path` under `name`; a layout may carry its name itself. Blocking.
    ///
    /// *Errors*: neither a WebAssembly file nor a layout, a digest that does not fit, something too large, no name.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<ImageRecord, Error> {
        let name = name.map(str::parse::<Reference>).transpose()?;
        let metadata = std::fs::metadata(path).map_err(Error::file("open", path))?;
        if metadata.is_dir() {
            return self.load_layout(path, name);
        }
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        let mut head = Vec::new();
        file.by_ref().take(512).read_to_end(&mut head).map_err(Error::file("read", path))?;
        if head.starts_with(&WASM_MAGIC) {
            let name = name.ok_or_else(|| Error::NoName(path.to_owned()))?;
            let mut whole = head.as_slice().chain(file);
            return self.load_wasm(&mut whole, &name);
        }
        let is_tar = head.get(257..262) == Some(b"ustar".as_slice());
        if is_tar || head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let unpacked = tempfile::tempdir_in(self.ingest_dir())
                .map_err(Error::file("make a directory in", self.ingest_dir()))?;
            unpack_layout(path, unpacked.path())?;
            return self.load_layout(unpacked.path(), name);
        }
        Err(Error::UnknownFormat(path.to_owned()))
    }

    fn load_wasm(&self, reader: &mut dyn Read, name: &Reference) -> Result<ImageRecord, Error> {
        let wasm = ingest(&self.ingest_dir(), "the WebAssembly file", reader, MAX_WASM_BYTES)?;
        let config = Descriptor {
            media_type: WASM_CONFIG.to_owned(),
            digest: digest_of(b"{}"),
            size: 2,
            ..Default::default()
        };
        let document = manifest::of_wasm(&wasm.digest, wasm.size, &config);
        let bytes = serde_json::to_vec(&document)
            .map_err(|source| Error::Json { what: "manifest".to_owned(), source })?;
        self.finish(&bytes, &document, RunConfig::default(), wasm, Some(name))
    }

    fn load_layout(&self, directory: &Path, name: Option<Reference>) -> Result<ImageRecord, Error> {
        let path = directory.join("index.json");
        if !path.is_file() {
            return Err(Error::UnknownFormat(directory.to_owned()));
        }
        let mut document = manifest::parse("index.json", &read_small(&path, MAX_JSON_BYTES)?)?;
        let blobs = Layout(directory);
        let mut bytes = Vec::new();
        let mut name = name;
        // An index may hold an index, which holds the manifest; deeper nesting does not occur.
        for _ in 0..3 {
            let Some(chosen) = document.choose()?.cloned() else { break };
            if name.is_none() {
                let named = NAME_ANNOTATIONS.iter().find_map(|key| chosen.annotations.get(*key));
                name = named.map(|named| named.parse()).transpose()?;
            }
            bytes = read_small(&blobs.path(&chosen.digest)?, MAX_JSON_BYTES)?;
            expect_digest("manifest", &chosen.digest, &digest_of(&bytes))?;
            document = manifest::parse("manifest", &bytes)?;
        }
        if bytes.is_empty() || !document.manifests.is_empty() {
            return Err(Error::NotWasm("its index leads to no manifest".to_owned()));
        }
        let name = name.ok_or_else(|| Error::NoName(directory.to_owned()))?;
        self.import(&bytes, &document, &blobs, &name)
    }

    /// Takes an image whose blobs are at hand. Blocking.
    pub(crate) fn import(
        &self,
        manifest_bytes: &[u8],
        document: &Document,
        blobs: &dyn Blobs,
        name: &Reference,
    ) -> Result<ImageRecord, Error> {
        let run = match &document.config {
            Some(config) => {
                let bytes = read_small(&blobs.path(&config.digest)?, MAX_JSON_BYTES)?;
                expect_digest("image configuration", &config.digest, &digest_of(&bytes))?;
                document.run_config(&bytes)?
            }
            None => RunConfig::default(),
        };
        let wasm = match document.guest(&run)? {
            Guest::Layer(layer) => {
                let path = blobs.path(&layer.digest)?;
                let mut file = File::open(&path).map_err(Error::file("open", &path))?;
                let wasm = ingest(&self.ingest_dir(), "the WebAssembly layer", &mut file, MAX_WASM_BYTES)?;
                expect_digest("layer", &layer.digest, &wasm.digest)?;
                wasm
            }
            Guest::Path(path) => self.ingest_from_layers(document, blobs, &path)?,
        };
        self.finish(manifest_bytes, document, run, wasm, Some(name))
    }

    fn ingest_from_layers(
        &self,
        document: &Document,
        blobs: &dyn Blobs,
        path: &str,
    ) -> Result<Ingested, Error> {
        let mut tree = Tree::default();
        let mut files = Vec::new();
        for layer in &document.layers {
            let file = blobs.path(&layer.digest)?;
            let reader = &mut File::open(&file).map_err(Error::file("open", &file))?;
            expect_digest("layer", &layer.digest, &measure(reader, &file)?)?;
            tree.push_layer(layers::open(&file)?)?;
            files.push(file);
        }
        let (layer, path) = tree
            .resolve(path)
            .ok_or_else(|| Error::NotWasm(format!("its entry point /{path} is in none of its layers")))?;
        let mut found = None;
        layers::read_file(layers::open(&files[layer])?, &path, |reader| {
            found = Some(ingest(&self.ingest_dir(), "the entry point", reader, MAX_WASM_BYTES)?);
            Ok(())
        })?;
        found.ok_or_else(|| Error::NotWasm(format!("/{path} is not a regular file")))
    }

    fn finish(
        &self,
        manifest_bytes: &[u8],
        document: &Document,
        run: RunConfig,
        wasm: Ingested,
        name: Option<&Reference>,
    ) -> Result<ImageRecord, Error> {
        let mut magic = [0; 4];
        let path = wasm.file.path().to_owned();
        File::open(&path)
            .and_then(|mut file| file.read_exact(&mut magic))
            .map_err(|_| Error::NotWasm("its program is empty".to_owned()))?;
        if magic != WASM_MAGIC {
            return Err(Error::NotWasm("its program does not begin like a WebAssembly file".to_owned()));
        }
        let manifest_reader = &mut &manifest_bytes[..];
        let manifest = ingest(&self.ingest_dir(), "the manifest", manifest_reader, MAX_JSON_BYTES)?;
        let created_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let record = ImageRecord {
            names: name.filter(|name| name.tag().is_some()).map(tagged).into_iter().collect(),
            digests: name.map(|name| name.with_digest(&manifest.digest)).into_iter().collect(),
            id: manifest.digest.clone(),
            wasm_digest: wasm.digest.clone(),
            size_bytes: wasm.size,
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            working_dir: run.working_dir,
            annotations: document.annotations.clone(),
            created_at_seconds: created_at.map_or(0, |since| since.as_secs()),
        };
        let writing = self.write()?;
        self.keep(&writing, wasm)?;
        self.keep(&writing, manifest)?;
        self.put(&writing, record)
    }
}

/// The name without its digest: `name:tag@digest` is found by either.
fn tagged(name: &Reference) -> String {
    let text = name.to_string();
    text.split('@').next().unwrap_or_default().to_owned()
}

fn measure(reader: &mut dyn Read, path: &Path) -> Result<String, Error> {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0_u64;
    loop {
        let n = reader.read(&mut buffer).map_err(Error::file("read", path))?;
        if n == 0 {
            return Ok(format!("sha256:{}", hex::encode(hash.finalize())));
        }
        size += n as u64;
        if size > MAX_LAYER_BYTES {
            return Err(Error::TooLarge { what: "a layer".to_owned(), limit_bytes: MAX_LAYER_BYTES });
        }
        hash.update(&buffer[..n]);
    }
}

/// Takes `index.json` and the blobs out of a tar; any other name in it is passed over.
fn unpack_layout(tar: &Path, into: &Path) -> Result<(), Error> {
    let blobs = into.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(Error::file("make", &blobs))?;
    let mut archive = tar::Archive::new(layers::open(tar)?);
    let mut taken = 0;
    for entry in archive.entries().map_err(Error::file("read", tar))? {
        let mut entry = entry.map_err(Error::file("read", tar))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name);
        let (to, limit) = match name.strip_prefix("blobs/sha256/") {
            Some(hex) if is_digest(&format!("sha256:{hex}")) => (blobs.join(hex), MAX_LAYER_BYTES),
            None if name == "index.json" => (into.join(name), MAX_JSON_BYTES),
            _ => continue,
        };
        taken += 1;
        if taken > 2 * MAX_LAYERS + 16 {
            return Err(Error::NotWasm("the archive has too many blobs".to_owned()));
        }
        let ingested = ingest(into, name, &mut entry, limit)?;
        ingested.file.persist(&to).map_err(|error| Error::file("write", &to)(error.error))?;
    }
    Ok(())
}

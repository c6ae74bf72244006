//! Content on its way into the store: hashed and measured while it is written.

use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::Error;

/// A file in the store's ingest directory, not yet a blob.
pub(crate) struct Ingested {
    pub(crate) file: NamedTempFile,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

/// Writes what `reader` gives into `directory`, at most `limit` bytes of it.
pub(crate) fn ingest(
    directory: &Path,
    what: &str,
    reader: &mut dyn Read,
    limit: u64,
) -> Result<Ingested, Error> {
    let mut file = NamedTempFile::new_in(directory).map_err(Error::file("make a file in", directory))?;
    let mut hash = Sha256::new();
    let mut size = 0_u64;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = reader.read(&mut buffer).map_err(Error::file("read", what))?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > limit {
            return Err(Error::TooLarge { what: what.to_owned(), limit_bytes: limit });
        }
        hash.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(Error::file("write", directory))?;
    }
    let digest = format!("sha256:{}", hex::encode(hash.finalize()));
    Ok(Ingested { file, digest, size })
}

/// Digest of bytes at hand.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Fails unless the digest is the one that was asked for.
pub(crate) fn expect_digest(what: &str, expected: &str, actual: &str) -> Result<(), Error> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::Digest { what: what.to_owned(), expected: expected.to_owned(), actual: actual.to_owned() })
}

/// A whole small file.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = std::fs::File::open(path).map_err(Error::file("open", path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { what: path.display().to_string(), limit_bytes: limit });
    }
    Ok(bytes)
}

//! The image of pod sandboxes: one static program of some 600 bytes (`pause/pause.c`), so that no registry is needed.

use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::archive::{ArchiveError, write_file};

/// The name of the image that holds a sandbox's namespaces.
pub const PAUSE_IMAGE: &str = "wherry.local/pause:1";

/// The program, and how Go and OCI call its architecture.
#[cfg(target_arch = "x86_64")]
const PROGRAM: (&[u8], &str) = (include_bytes!("../../pause/pause-x86_64"), "amd64");
/// The program, and how Go and OCI call its architecture.
#[cfg(target_arch = "aarch64")]
const PROGRAM: (&[u8], &str) = (include_bytes!("../../pause/pause-aarch64"), "arm64");

/// Writes the image as an OCI layout. The same program gives the same bytes, and so the same digests.
pub(super) fn write_layout(directory: &Path) -> Result<(), ArchiveError> {
    let (program, architecture) = PROGRAM;
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(program.len()).unwrap_or(u64::MAX));
    header.set_mode(0o755);
    header.set_mtime(0);
    layer
        .append_data(&mut header, "pause", program)
        .and_then(|()| layer.into_inner())
        .map_err(|source| ArchiveError::file("write", directory, source))
        .and_then(|layer| {
            let blob = |bytes: &[u8]| -> Result<(String, usize), ArchiveError> {
                let hex = hex::encode(Sha256::digest(bytes));
                write_file(&directory.join("blobs/sha256").join(&hex), bytes)?;
                Ok((format!("sha256:{hex}"), bytes.len()))
            };
            let (layer_digest, layer_size) = blob(&layer)?;
            let config = json!({
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": ["/pause"], "WorkingDir": "/", "User": "65535:65535"},
                "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            });
            let (config_digest, config_size) = blob(config.to_string().as_bytes())?;
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config_digest, "size": config_size,
                },
                "layers": [{
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer_digest, "size": layer_size,
                }],
            });
            let (manifest_digest, manifest_size) = blob(manifest.to_string().as_bytes())?;
            let index = json!({"schemaVersion": 2, "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest, "size": manifest_size,
                "annotations": {"io.containerd.image.name": PAUSE_IMAGE},
            }]});
            write_file(&directory.join("index.json"), index.to_string().as_bytes())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_a_small_static_elf_file() {
        let (program, _) = PROGRAM;
        assert!(program.starts_with(b"\x7fELF") && program.len() < 2048);
        // No dynamic section and no interpreter: PT_LOAD (1) and PT_GNU_STACK are all there is.
        let headers = usize::from(u16::from_le_bytes([program[56], program[57]]));
        let kinds: Vec<u8> = (0..headers).map(|n| program[64 + 56 * n]).collect();
        assert!(kinds.iter().all(|kind| ![2, 3].contains(kind)), "{kinds:?}");
    }
}

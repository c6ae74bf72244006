//! Loading images: every form, and what is refused.

use std::path::Path;

use wherry_runtime_wasm::ImageStore;
use wherry_runtime_wasm::image::Error;

use super::fixture::{layout, testdata};

fn wasm() -> Vec<u8> {
    std::fs::read(testdata("guest.wasm")).unwrap()
}

fn tar_of(layout: &Path, into: &Path, prefix: &str) {
    let mut tar = tar::Builder::new(std::fs::File::create(into).unwrap());
    for name in ["oci-layout", "index.json"] {
        tar.append_path_with_name(layout.join(name), format!("{prefix}{name}")).unwrap();
    }
    for blob in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let name = format!("{prefix}blobs/sha256/{}", blob.file_name().to_string_lossy());
        tar.append_path_with_name(blob.path(), name).unwrap();
    }
    tar.finish().unwrap();
}

#[test]
fn a_file_a_layout_and_a_tar_of_it_are_all_images() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    let file = store.load(&testdata("guest.wasm"), Some("hello")).unwrap();
    assert_eq!(file.names, ["docker.io/library/hello:latest"]);
    assert_eq!(std::fs::read(store.blob_path(&file.wasm_digest).unwrap()).unwrap(), wasm());
    let directory = dir.path().join("layout");
    layout(&directory, "registry.example/team/app:v2", &wasm(), &["prints"]);
    let from_layout = store.load(&directory, None).unwrap();
    assert_eq!(from_layout.names, ["registry.example/team/app:v2"]);
    assert_eq!(
        (&from_layout.entrypoint[..], &from_layout.cmd[..]),
        (&["/app/guest.wasm".to_owned()][..], &["prints".to_owned()][..])
    );
    assert_eq!(from_layout.wasm_digest, file.wasm_digest, "the same guest is compiled once");
    let tar = dir.path().join("app.tar");
    tar_of(&directory, &tar, "./");
    let from_tar = store.load(&tar, Some("other:v1")).unwrap();
    assert_eq!(from_tar.id, from_layout.id);
    assert_eq!(from_tar.names, ["docker.io/library/other:v1", "registry.example/team/app:v2"]);
    // Another process sees the same.
    let other = ImageStore::open(&dir.path().join("store")).unwrap();
    assert_eq!(other.list().unwrap(), store.list().unwrap());
    assert_eq!(other.find("other:v1").unwrap().unwrap().id, from_layout.id);
    assert!(other.remove("other:v1").unwrap());
    assert!(store.find("registry.example/team/app:v2").unwrap().is_some());
    assert!(store.remove_image("registry.example/team/app:v2").unwrap());
    assert!(store.remove("hello").unwrap());
    assert!(!store.remove("hello").unwrap());
    assert_eq!(store.usage().unwrap(), (0, 0), "blobs go with the last image that needs them");
}

#[test]
fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(matches!(store.load(&testdata("guest.wasm"), None), Err(Error::NoName(_))));
    assert!(matches!(store.load(&testdata("guest.wasm"), Some("Not A Name")), Err(Error::Name { .. })));
    assert!(matches!(store.load(&write("text", b"hello"), Some("x")), Err(Error::UnknownFormat(_))));
    assert!(matches!(store.load(&dir.path().join("none"), Some("x")), Err(Error::File { .. })));
    assert!(matches!(store.load(dir.path(), Some("x")), Err(Error::UnknownFormat(_))));
    let damaged = dir.path().join("damaged");
    layout(&damaged, "x", &wasm(), &[]);
    for blob in std::fs::read_dir(damaged.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[0] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let refused = store.load(&damaged, None);
        assert!(matches!(refused, Err(Error::Digest { .. })), "{refused:?}");
        std::fs::write(&path, bytes).unwrap();
    }
    let shell = dir.path().join("shell");
    layout(&shell, "x", b"#!/bin/sh", &[]);
    assert!(matches!(store.load(&shell, None), Err(Error::NotWasm(_))));
    let climbing = dir.path().join("climbing");
    layout(&climbing, "x", &wasm(), &[]);
    let index = r#"{"manifests":[{"digest":"sha256:../../../../etc/passwd"}]}"#;
    std::fs::write(climbing.join("index.json"), index).unwrap();
    assert!(matches!(store.load(&climbing, None), Err(Error::NotWasm(_))));
    assert_eq!(store.usage().unwrap(), (0, 0));
    assert_eq!(std::fs::read_dir(dir.path().join("store/ingest")).unwrap().count(), 0);
}

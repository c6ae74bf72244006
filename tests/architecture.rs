//! The crates and the arrows between them: what may depend on what.
//!
//! An arrow or a crate that is not in this table fails the test; a new one is added here in the commit that makes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

const MACHINERY: &str = "wherry-machinery";

/// Every crate with the crates of this workspace that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    (MACHINERY, &[]),
    ("wherry-storage", &[MACHINERY]),
    ("wherry-apiserver", &[MACHINERY, "wherry-storage"]),
    ("wherry-client", &[MACHINERY]),
    ("wherry-scheduler", &[MACHINERY, "wherry-client"]),
    ("wherry-controllers", &[MACHINERY, "wherry-client"]),
    ("wherry-proxy", &[MACHINERY, "wherry-client"]),
    ("wherry-runtimes", &[MACHINERY]),
    ("wherry-runtime-wasm", &[MACHINERY, "wherry-runtimes"]),
    ("wherry-runtime-cri", &[MACHINERY, "wherry-runtimes"]),
    ("wherry-kubelet", &[MACHINERY, "wherry-client", "wherry-runtimes"]),
    (
        "wherry",
        &[
            MACHINERY,
            "wherry-apiserver",
            "wherry-client",
            "wherry-controllers",
            "wherry-kubelet",
            "wherry-proxy",
            "wherry-runtime-cri",
            "wherry-runtime-wasm",
            "wherry-runtimes",
            "wherry-scheduler",
            "wherry-storage",
        ],
    ),
];

/// Arrows that only tests may use: the suite of all runtimes is run on the Wasm runtime through its socket as well.
const TEST_ARROWS: &[(&str, &str)] = &[("wherry-runtime-wasm", "wherry-runtime-cri")];

/// Foreign crates that only certain crates may name, so that one crate owns each technology.
const OWNED: &[(&str, &[&str])] = &[
    ("wasmtime", &["wherry-runtime-wasm"]),
    ("wasmtime-wasi", &["wherry-runtime-wasm"]),
    ("wasmtime-wasi-http", &["wherry-runtime-wasm"]),
    ("tonic", &["wherry-runtime-cri"]),
    ("k8s-cri", &["wherry-runtime-cri"]),
    ("redb", &["wherry-storage"]),
    ("etcd-client", &["wherry-storage"]),
];

/// What a pure crate must not name.
const IMPURE: &[&str] = &["tokio", "hyper", "axum", "kube", "reqwest", "rustls"];

struct Package {
    normal: BTreeSet<String>,
    any: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("there is a list of dependencies");
            let names = |only_normal: bool| {
                dependencies
                    .iter()
                    .filter(|dependency| !only_normal || dependency["kind"].is_null())
                    .filter_map(|dependency| dependency["name"].as_str())
                    .map(str::to_owned)
                    .collect()
            };
            let name = package["name"].as_str().expect("a package has a name").to_owned();
            (name, Package { normal: names(true), any: names(false) })
        })
        .collect()
}

#[test]
fn every_crate_is_in_the_table_and_has_only_the_arrows_it_may_have() {
    let packages = packages();
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let present: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    assert_eq!(present, table.keys().copied().collect(), "the table and the workspace differ");
    for (name, package) in &packages {
        let allowed = table[name.as_str()];
        for dependency in package.any.iter().filter(|dependency| dependency.starts_with("wherry")) {
            let is_for_tests = !package.normal.contains(dependency)
                // A crate may name itself, to switch on a feature of its own.
                && (dependency == name || TEST_ARROWS.contains(&(name.as_str(), dependency.as_str())));
            assert!(
                is_for_tests || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn a_technology_has_one_owner() {
    let packages = packages();
    for (foreign, owners) in OWNED {
        for (name, package) in &packages {
            assert!(
                !package.normal.contains(*foreign) || owners.contains(&name.as_str()),
                "{name} must not name {foreign}, which belongs to {owners:?}"
            );
        }
    }
}

#[test]
fn the_machinery_is_pure() {
    for impure in IMPURE {
        assert!(!packages()[MACHINERY].normal.contains(*impure), "{MACHINERY} must not name {impure}");
    }
}

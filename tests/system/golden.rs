//! What a kube-apiserver 1.36 answered, asked of ours: `tests/golden` has the requests and the answers, and what is open.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde::Deserialize;

use crate::support::TestCluster;

#[derive(Deserialize)]
struct Outcome {
    group: String,
    name: String,
    passed: bool,
    diff: Vec<String>,
}

/// The scenarios that are known to be answered otherwise: lines `group/name`, with words about them after `#`.
fn open(folder: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(folder.join("open.txt")).unwrap();
    let scenarios = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    scenarios.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn recorded_requests_are_answered_as_kube_apiserver_answers_them() {
    let cluster = TestCluster::start_api_server();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let results = cluster.data_dir().join("golden.json");
    // By a token: some requests are sent without it, and must be anonymous then.
    cluster.ok(&["create", "serviceaccount", "golden", "-n", "kube-system"]);
    let subject = "--serviceaccount=kube-system:golden";
    cluster.ok(&["create", "clusterrolebinding", "golden", "--clusterrole=cluster-admin", subject]);
    let token = cluster.ok(&["create", "token", "golden", "-n", "kube-system", "--duration=1h"]);
    let server = cluster.ok(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let output = Command::new("python3")
        .arg(folder.join("run.py"))
        .args(["--jobs", "4", "--server", &server, "--token", token.trim(), "--ca"])
        .arg(cluster.data_dir().join("pki/ca.crt"))
        .arg("--json")
        .arg(&results)
        .arg(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcomes: Vec<Outcome> = serde_json::from_slice(&fs::read(&results).unwrap_or_else(|error| {
        panic!(
            "the scenarios did not run to their end ({error}): {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
    }))
    .unwrap();
    // The last lines count the scenarios that pass, by group.
    let counts = said.lines().filter(|line| {
        line.ends_with("scenarios") || (line.contains(": ") && line.contains('/') && !line.starts_with(' '))
    });
    counts.for_each(|line| println!("{line}"));
    let name = |outcome: &Outcome| format!("{}/{}", outcome.group, outcome.name);
    let open = open(folder);
    let broken: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed && !open.contains(&name(outcome)))
        .map(|outcome| format!("{}:\n    {}", name(outcome), outcome.diff.join("\n    ")))
        .collect();
    assert!(broken.is_empty(), "no longer answered as recorded:\n{}", broken.join("\n"));
    let mended: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.passed)
        .map(name)
        .filter(|name| open.contains(name))
        .collect();
    assert!(mended.is_empty(), "answered as recorded now; strike them from open.txt: {mended:?}");
}

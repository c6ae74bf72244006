//! A manifest that is wrong is refused in Kubernetes' words and changes nothing.

use crate::support::TestCluster;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers: [{name: c, image: i}]
"#;

#[test]
fn wrong_manifests_are_refused_and_change_nothing() {
    let cluster = TestCluster::start();
    let good = DEPLOYMENT.replace("NAME", "good");
    cluster.apply(&good);
    let version = cluster.ok(&["get", "deployment", "good", "-o", "jsonpath={.metadata.generation}"]);
    let new = |from: &str, to: &str| DEPLOYMENT.replace("NAME", "bad").replace(from, to);
    let long_name = "n".repeat(254);
    let table = [
        (
            "an unknown field",
            new("selector:", "selektor: 1\n  selector:"),
            r#"unknown field "spec.selektor""#,
        ),
        (
            "a bad quantity",
            new("image: i", "image: i, resources: {limits: {memory: 12parsecs}}"),
            "quantities must match the regular expression",
        ),
        (
            "a missing selector",
            new("selector: {matchLabels: {app: a}}", "paused: false"),
            "spec.selector: Required value",
        ),
        (
            "a selector that does not match",
            new("matchLabels: {app: a}", "matchLabels: {app: b}"),
            "`selector` does not match template `labels`",
        ),
        ("an over-long name", DEPLOYMENT.replace("NAME", &long_name), "must be no more than 253 characters"),
        (
            "a name with capitals",
            DEPLOYMENT.replace("NAME", "Bad"),
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        ("an immutable field", good.replace("{app: a}", "{app: b}"), "field is immutable"),
    ];
    for (what, manifest, words) in table {
        let output = cluster.kubectl_with_input(&["apply", "-f", "-"], &manifest);
        assert_eq!(output.code, 1, "{what}: {output:?}");
        assert!(output.stderr.contains(words), "{what}: {}", output.stderr);
        // kubectl's own validation must not be what refuses: the server has the last word.
        let output = cluster.kubectl_with_input(&["apply", "--validate=false", "-f", "-"], &manifest);
        assert!(output.code == 1 || what == "an unknown field", "{what}: {output:?}");
        if what == "an unknown field" {
            cluster.ok(&["delete", "deployment", "bad"]);
        }
    }
    assert_eq!(cluster.ok(&["get", "deployments", "-o", "name"]), "deployment.apps/good\n");
    assert_eq!(cluster.ok(&["get", "deployment", "good", "-o", "jsonpath={.metadata.generation}"]), version);
}

#[test]
fn a_body_of_ten_megabytes_is_refused() {
    let cluster = TestCluster::start();
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"big": "x".repeat(10 << 20)},
    });
    let output = cluster.kubectl_with_input(&["create", "-f", "-"], &manifest.to_string());
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("Request entity too large: limit is 3145728"), "{}", output.stderr);
    assert!(cluster.kubectl(&["get", "configmap", "big"]).stderr.contains("not found"));
}

#[test]
fn a_yaml_bomb_is_refused_by_the_server() {
    let cluster = TestCluster::start();
    let mut bomb =
        String::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\ndata:\n  a: &a \"lol\"\n");
    for level in 'b'..='j' {
        let previous = char::from_u32(u32::from(level) - 1).unwrap();
        let references = vec![format!("*{previous}"); 10].join(",");
        bomb.push_str(&format!("  {level}: &{level} [{references}]\n"));
    }
    // kubectl parses YAML itself, so the bomb is sent as it is.
    let file = cluster.data_dir().join("bomb.yaml");
    std::fs::write(&file, bomb).unwrap();
    let before = std::time::Instant::now();
    let output = cluster.kubectl(&[
        "create",
        "--raw",
        "/api/v1/namespaces/default/configmaps",
        "-f",
        file.to_str().unwrap(),
    ]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(before.elapsed() < crate::support::PATIENCE);
    assert!(cluster.kubectl(&["get", "configmap", "bomb"]).stderr.contains("not found"));
    cluster.ok(&["get", "--raw", "/readyz"]);
}

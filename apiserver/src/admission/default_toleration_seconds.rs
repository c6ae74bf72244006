//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or out of reach.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};
use crate::registry::{Refusal, Registry};

/// How long. Source: kube-apiserver's `--default-not-ready-toleration-seconds`.
const SECONDS: u64 = 300;
/// The taints.
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plugin.
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, _registry: &Registry, of: &Attributes<'_>, pod: &mut Value) -> Result<(), Refusal> {
        if matches!(of.operation, Operation::Create | Operation::Update) && of.is("", "pods") {
            add_tolerations(pod);
        }
        Ok(())
    }
}

fn add_tolerations(pod: &mut Value) {
    let present = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let tolerates = |taint: &str| {
        present.iter().any(|toleration| {
            let field = |name: &str| toleration[name].as_str().unwrap_or_default();
            (field("key") == taint || field("key").is_empty())
                && (field("effect") == "NoExecute" || field("effect").is_empty())
        })
    };
    let missing: Vec<Value> = TAINTS
        .into_iter()
        .filter(|taint| !tolerates(taint))
        .map(|taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}))
        .collect();
    if !missing.is_empty() {
        pod["spec"]["tolerations"] = Value::Array([present, missing].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_pod_does_not_tolerate_by_itself_is_added() {
        let count = |tolerations: Value| {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            add_tolerations(&mut pod);
            pod["spec"]["tolerations"].as_array().unwrap().len()
        };
        assert_eq!(count(Value::Null), 2);
        assert_eq!(count(json!([{"operator": "Exists"}])), 1);
        assert_eq!(count(json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}])), 2);
        assert_eq!(count(json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}])), 3);
    }
}

//! TaintNodesByCondition: a new node takes no pods until it is said to be ready.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};
use crate::registry::{Refusal, Registry};

/// The taint of a node that is not ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plugin.
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(
        &self,
        _registry: &Registry,
        of: &Attributes<'_>,
        node: &mut Value,
    ) -> Result<(), Refusal> {
        if of.operation == Operation::Create && of.is("", "nodes") {
            taint(node);
        }
        Ok(())
    }
}

fn taint(node: &mut Value) {
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    let taints = &mut node["spec"]["taints"];
    match taints {
        Value::Array(list) => {
            let is_there = list.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule");
            if !is_there {
                list.push(taint);
            }
        }
        other => *other = json!([taint]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tainted_once() {
        let mut node = json!({"spec": {}});
        taint(&mut node);
        taint(&mut node);
        assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
    }
}

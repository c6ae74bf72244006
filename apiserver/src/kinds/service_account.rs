//! ServiceAccount.

use serde_json::Value;

use super::table;
use crate::registry::strategy::{Resource, Scope, Strategy};

/// `serviceaccounts`.
pub(crate) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "",
            version: "v1",
            name: "serviceaccounts",
            kind: "ServiceAccount",
            scope: Scope::Namespaced,
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let enforced = object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get("kubernetes.io/enforce-mountable-secrets"));
        if enforced.is_some() {
            vec!["metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(vec![table::name(object), table::age(object, now_unix_seconds)])
    }
}

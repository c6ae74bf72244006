//! Label selectors of typed objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wherry_machinery::selector::Selector;

use crate::Error;

/// The selector as something that matches.
pub(crate) fn compile(selector: &LabelSelector, object: impl FnOnce() -> String) -> Result<Selector, Error> {
    let value = serde_json::to_value(selector).unwrap_or_default();
    Selector::from_label_selector(&value)
        .map_err(|error| Error::Selector { object: object(), message: error.to_string() })
}

/// Whether `selector` matches an object with these labels.
pub(crate) fn matches(selector: &Selector, labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.map_or_else(|| selector.matches(&BTreeMap::new()), |labels| selector.matches(labels))
}

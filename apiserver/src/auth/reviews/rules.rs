//! What may I do in this namespace?

use serde_json::{Value, json};
use wherry_machinery::Status;

use super::text;
use crate::auth::authorizer::Authorizer;
use crate::identity::Identity;
use crate::registry::Refusal;

pub(super) fn self_subject(
    authorizer: &Authorizer,
    identity: &Identity,
    review: &Value,
) -> Result<Value, Refusal> {
    let namespace = review.get("spec").map(|spec| text(spec, "namespace")).unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request").into());
    }
    let found = authorizer.rules_for(identity, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) =
        found.rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let mut status = json!({
        "resourceRules": resources,
        "nonResourceRules": paths,
        "incomplete": found.incomplete,
    });
    if !found.error.is_empty() {
        status["evaluationError"] = found.error.into();
    }
    Ok(json!({"spec": {}, "status": status}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_master_are_everything() {
        let review = json!({"spec": {"namespace": "a"}});
        let answer = self_subject(&Authorizer::default(), &Identity::admin("root"), &review).unwrap();
        assert_eq!(
            answer["status"],
            json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": false,
            })
        );
        let none = self_subject(&Authorizer::default(), &Identity::admin("root"), &json!({})).unwrap_err();
        assert_eq!((none.code, none.message.as_str()), (400, "no namespace on request"));
    }
}

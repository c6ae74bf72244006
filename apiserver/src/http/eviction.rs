//! Eviction: the deletion of a pod, as far as its disruption budgets allow.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/storage.EvictionREST`.

use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use wherry_machinery::selector::Selector;
use wherry_machinery::status::{Reason, Status, StatusCause, StatusDetails};

use super::{Call, options, subresource, write};
use crate::registry::context::Context;
use crate::registry::strategy::Part;
use crate::registry::{ListVersion, Refusal, Registry, Target, object};

/// More pods than these that are going already, and nothing more goes. Source: `MaxDisruptedPodSize`.
const MAX_DISRUPTED_PODS: usize = 2000;

/// When to ask again while a budget is not computed yet, in seconds.
const RETRY_AFTER_SECONDS: u32 = 10;

/// POST of an `Eviction` of a pod.
pub(super) async fn evict(call: &mut Call, headers: &HeaderMap, body: &Bytes) -> Result<Response, Refusal> {
    options::write_options(&call.query, "CreateOptions", &mut call.context)?;
    let eviction = subresource::sent(call, &subresource::EVICTION, headers, body)?;
    if object::name(&eviction) != call.info.name {
        return Err(Status::failure(
            Reason::BadRequest,
            "name in URL does not match name in Eviction object",
        )
        .into());
    }
    let dry_run = call.context.dry_run;
    let sent_options = eviction.get("deleteOptions").filter(|options| options.is_object());
    let mut options = options::delete_options(&super::Query::default(), sent_options, &mut call.context)?;
    call.context.dry_run |= dry_run;
    let (namespace, name) = (call.namespace().to_owned(), call.info.name.clone());
    let registry = &call.api.registry;
    let pod = registry.get(&call.kind, &namespace, &name, ListVersion::Latest).await?.value();
    if needs_leave(&pod) && take_leave(registry, &call.context, &pod).await? {
        // What was allowed is the end of this pod, as it is.
        options.preconditions.uid.get_or_insert_with(|| object::text(&pod, "uid").to_owned());
    }
    registry.delete(&call.kind, &call.context, &namespace, &name, &options).await?;
    Ok(write::done(call))
}

/// A pod that has not begun, has ended or is going already is nobody's loss.
fn needs_leave(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !object::is_deleting(pod)
}

/// Asks the pod's budget; answers whether there is one.
async fn take_leave(registry: &Registry, context: &Context, pod: &Value) -> Result<bool, Refusal> {
    let Some(budgets) = registry.kind("policy", "v1", "poddisruptionbudgets") else { return Ok(false) };
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let all = budgets.cacher.snapshot(Some(namespace), 0);
    let matching: Vec<String> = all
        .entries
        .iter()
        .filter(|entry| selects(&entry.value(), pod))
        .map(|entry| entry.name().to_owned())
        .collect();
    let budget = match matching.as_slice() {
        [] => return Ok(false),
        [one] => one,
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::failure(Reason::InternalError, message).into());
        }
    };
    let now = wherry_machinery::time::format_seconds(context.now_unix_seconds);
    let transform = |old: &Value| decide(old, pod, name, &now);
    let target = Target { part: Part::Status, subresource: "status", ..Target::object(namespace, budget) };
    registry.update(budgets, context, target, &transform).await?;
    Ok(true)
}

fn selects(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = budget.pointer("/spec/selector").filter(|selector| !selector.is_null()) else {
        return false;
    };
    let labels = wherry_machinery::metadata::labels(pod);
    Selector::from_label_selector(selector).is_ok_and(|selector| selector.matches(&labels))
}

/// The budget after it let the pod go.
fn decide(budget: &Value, pod: &Value, name: &str, now: &str) -> Result<Value, Refusal> {
    let budget_name = object::name(budget);
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
    if !is_ready(pod) {
        let policy = budget["spec"]["unhealthyPodEvictionPolicy"].as_str().unwrap_or("IfHealthyBudget");
        let is_met = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
        if policy == "AlwaysAllow" || is_met {
            return Ok(budget.clone());
        }
    }
    if number("observedGeneration") < object::generation(budget) {
        let why = format!("The disruption budget {budget_name} is still being processed by the server.");
        return Err(not_now(why, RETRY_AFTER_SECONDS));
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(forbidden(budget_name, "pdb disruptions allowed is negative"));
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        return Err(forbidden(
            budget_name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {budget_name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(not_now(why, 0));
    }
    let mut new = budget.clone();
    new["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if !new["status"]["disruptedPods"].is_object() {
        new["status"]["disruptedPods"] = json!({});
    }
    new["status"]["disruptedPods"][name] = now.into();
    Ok(new)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn not_now(why: String, retry_after_seconds: u32) -> Refusal {
    let cause = StatusCause { reason: "DisruptionBudget".to_owned(), message: why, ..StatusCause::default() };
    let details = StatusDetails { causes: vec![cause], retry_after_seconds, ..StatusDetails::default() };
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    Status::failure(Reason::TooManyRequests, message).with_details(details).into()
}

fn forbidden(budget: &str, why: &str) -> Refusal {
    let message = format!("poddisruptionbudgets.policy {budget:?} is forbidden: {why}");
    Status::failure(Reason::Forbidden, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_lets_pods_go_as_long_as_it_has_some_to_give() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let budget =
            |status: Value| json!({"metadata": {"name": "b", "generation": 2}, "spec": {}, "status": status});
        let decided = |status: Value| decide(&budget(status), &pod, "p", "2026-01-02T03:04:05Z");
        let refused = |status: Value| decided(status).unwrap_err().details.unwrap().causes[0].message.clone();
        assert_eq!(
            refused(json!({"observedGeneration": 1, "disruptionsAllowed": 1})),
            "The disruption budget b is still being processed by the server."
        );
        assert_eq!(
            refused(json!({"observedGeneration": 2, "desiredHealthy": 2, "currentHealthy": 2})),
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
        let left = decided(json!({"observedGeneration": 2, "disruptionsAllowed": 2})).unwrap();
        assert_eq!(
            left["status"],
            json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": {"p": "2026-01-02T03:04:05Z"}})
        );
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_where_the_budget_is_met_or_does_not_mind() {
        let pod = json!({"metadata": {"name": "p"}, "status": {}});
        for (policy, healthy, goes) in
            [("IfHealthyBudget", 1, true), ("IfHealthyBudget", 0, false), ("AlwaysAllow", 0, true)]
        {
            let budget = json!({"metadata": {"name": "b"}, "spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"desiredHealthy": 1, "currentHealthy": healthy}});
            assert_eq!(decide(&budget, &pod, "p", "").is_ok(), goes, "{policy} {healthy}");
        }
    }
}

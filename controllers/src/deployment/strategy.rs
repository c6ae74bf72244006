//! How many pods may be missing or surplus during an update.

use k8s_openapi::api::apps::v1::{Deployment, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The wanted number of pods.
pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn rolling_update(deployment: &Deployment) -> Option<RollingUpdateDeployment> {
    let strategy = deployment.spec.as_ref()?.strategy.clone().unwrap_or_default();
    let is_rolling = strategy.type_.as_deref().is_none_or(|type_| type_ == "RollingUpdate");
    is_rolling.then(|| strategy.rolling_update.unwrap_or_default())
}

/// Whether pods are replaced gradually.
pub(super) fn is_rolling_update(deployment: &Deployment) -> bool {
    rolling_update(deployment).is_some()
}

/// How many pods there may be beyond the wanted number.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    rolling_update(deployment).map_or(0, |rolling| fenceposts(&rolling, replicas(deployment)).0)
}

/// How many of the wanted pods may be unavailable.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = replicas(deployment);
    match rolling_update(deployment) {
        Some(rolling) if replicas > 0 => fenceposts(&rolling, replicas).1.min(replicas),
        _ => 0,
    }
}

/// Surge, rounded up, and unavailability, rounded down; one of them at least one, or nothing could ever move.
fn fenceposts(rolling: &RollingUpdateDeployment, replicas: i32) -> (i32, i32) {
    let surge = scaled(rolling.max_surge.as_ref(), replicas, Round::Up);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), replicas, Round::Down);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

/// A number, or a percentage of `total`. What is neither counts as zero: validation keeps it out.
fn scaled(value: Option<&IntOrString>, total: i32, round: Round) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent =
                text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or_default();
            let product = percent.saturating_mul(total.into());
            let rounded = match round {
                Round::Up => product.saturating_add(99).div_euclid(100),
                Round::Down => product.div_euclid(100),
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_round_surge_up_and_unavailability_down() {
        for (replicas, surge, unavailable, expected) in [
            (4, json!("25%"), json!("25%"), (1, 1)),
            (3, json!("25%"), json!("25%"), (1, 0)),
            (10, json!("25%"), json!("25%"), (3, 2)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (3, json!(0), json!("10%"), (0, 1)),
            (3, json!(0), json!(0), (0, 1)),
            (3, json!(2), json!(5), (2, 3)),
            (0, json!("25%"), json!("25%"), (0, 0)),
            (5, json!("100%"), json!("100%"), (5, 5)),
        ] {
            let deployment = serde_json::from_value(json!({ "spec": {
                "replicas": replicas, "selector": {}, "template": {},
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
            } }))
            .expect("valid");
            let found = (max_surge(&deployment), max_unavailable(&deployment));
            assert_eq!(found, expected, "{replicas} {surge} {unavailable}");
        }
    }

    #[test]
    fn recreate_has_neither() {
        let deployment = serde_json::from_value(json!({ "spec": {
            "replicas": 3, "selector": {}, "template": {}, "strategy": { "type": "Recreate" },
        } }))
        .expect("valid");
        assert_eq!((max_surge(&deployment), max_unavailable(&deployment)), (0, 0));
        assert!(!is_rolling_update(&deployment));
    }
}

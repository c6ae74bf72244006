//! When a ready pod counts as available.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::pods;

/// Whether `pod` counts as available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It is ready, and has been for long enough.
    Available,
    /// It is ready, and will be available after this time if it stays so.
    After(Duration),
    /// It is not ready.
    NotReady,
}

/// Judges `pod` by `min_ready_seconds`.
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !pods::is_ready(pod) {
        return Availability::NotReady;
    }
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let Some(since) = pods::ready_since(pod) else { return Availability::NotReady };
    let ready_for = now.duration_since(since);
    match Duration::try_from(
        k8s_openapi::jiff::SignedDuration::from_secs(min_ready_seconds.into()) - ready_for,
    ) {
        Ok(left) if !left.is_zero() => Availability::After(left),
        _ => Availability::Available,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_pod_is_available_when_ready_for_long_enough() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).expect("a time");
        for (status, min_ready, now, expected) in [
            ("False", 0, 100, Availability::NotReady),
            ("True", 0, 0, Availability::Available),
            ("True", 10, 4, Availability::After(Duration::from_secs(6))),
            ("True", 10, 10, Availability::Available),
            ("True", 10, 11, Availability::Available),
        ] {
            let condition = PodCondition {
                type_: "Ready".into(),
                status: status.into(),
                last_transition_time: Some(Time(at(0))),
                ..PodCondition::default()
            };
            let status = PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() };
            let pod = Pod { status: Some(status), ..Pod::default() };
            assert_eq!(availability(&pod, min_ready, at(now)), expected, "{min_ready} {now}");
        }
    }
}

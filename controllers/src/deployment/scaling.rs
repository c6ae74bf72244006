//! How a new size of the deployment is spread over its replica sets.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::annotations::{desired_replicas, max_replicas};
use super::plan::Rollout;
use super::size;
use super::strategy::{is_rolling_update, max_surge, replicas};

/// The sets to be resized, with their new sizes.
pub(super) fn sizes(rollout: &Rollout<'_>) -> Vec<(usize, i32)> {
    let wanted = replicas(rollout.deployment);
    let set = |index: usize| &rollout.sets[index].set;
    let mut active: Vec<usize> = (0..rollout.sets.len()).filter(|index| size(set(*index)) > 0).collect();
    // One set has all the pods, or none has any: it takes the whole size.
    let single = match active.as_slice() {
        [] => rollout.newest.or_else(|| rollout.old().last()),
        [only] => Some(*only),
        _ => None,
    };
    if let Some(single) = single {
        return if size(set(single)) == wanted { Vec::new() } else { vec![(single, wanted)] };
    }
    if active.is_empty() {
        return Vec::new();
    }
    if rollout.newest.is_some_and(|newest| is_saturated(set(newest), wanted)) {
        return rollout.old().filter(|index| size(set(*index)) > 0).map(|index| (index, 0)).collect();
    }
    if !is_rolling_update(rollout.deployment) {
        return Vec::new();
    }
    let allowed = if wanted > 0 { wanted.saturating_add(max_surge(rollout.deployment)) } else { 0 };
    let to_add = allowed - active.iter().map(|index| size(set(*index))).sum::<i32>();
    // The larger first; of equal ones the newer first when growing, the older first when shrinking.
    active.sort_by(|a, b| {
        let newer_first = if to_add > 0 { b.cmp(a) } else { a.cmp(b) };
        size(set(*b)).cmp(&size(set(*a))).then(newer_first)
    });
    let mut added = 0;
    let mut sizes = Vec::new();
    for index in active {
        let share = proportion(rollout, set(index), to_add, added);
        added += share;
        sizes.push((index, size(set(index)) + share));
    }
    if to_add != 0
        && let Some((_, largest)) = sizes.first_mut()
    {
        *largest = (*largest + to_add - added).max(0);
    }
    sizes
}

/// Whether the set has the deployment's whole size, all of it available.
fn is_saturated(set: &ReplicaSet, wanted: i32) -> bool {
    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default();
    size(set) == wanted && desired_replicas(set) == Some(wanted) && available == wanted
}

/// The set's share of `to_add`, of which `added` is given away already.
fn proportion(rollout: &Rollout<'_>, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (share, allowed) = (fraction(rollout, set), to_add - added);
    if to_add > 0 { share.min(allowed) } else { share.max(allowed) }
}

/// By how much the set grows if it keeps its part of the deployment.
fn fraction(rollout: &Rollout<'_>, set: &ReplicaSet) -> i32 {
    let wanted = replicas(rollout.deployment);
    if wanted == 0 {
        return -size(set);
    }
    let largest = wanted.saturating_add(max_surge(rollout.deployment));
    let counted = rollout.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or_default();
    let before = max_replicas(set).filter(|replicas| *replicas != 0).unwrap_or(counted);
    if before <= 0 {
        return 0;
    }
    // Rounded to the nearest, halves up: no number here is negative.
    let (size_now, largest, before) = (i64::from(size(set)), i64::from(largest), i64::from(before));
    let new_size = (2 * size_now * largest + before) / (2 * before);
    i32::try_from(new_size).unwrap_or(i32::MAX) - size(set)
}

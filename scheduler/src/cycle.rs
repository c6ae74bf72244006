//! The decision for one pod. Pure.

use std::collections::BTreeSet;

use crate::diagnosis::Diagnosis;
use crate::framework::{Profile, Verdict};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// With fewer nodes than this, all are looked at.
const MIN_FEASIBLE_NODES: usize = 100;

/// What is to be done with the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Run it there.
    Bind {
        /// The node's name.
        node: String,
        /// How many nodes were looked at; the next cycle begins after them.
        evaluated: usize,
    },
    /// No node will do.
    Unschedulable(Diagnosis),
}

/// Chooses the best of the nodes that will do. In a large cluster only a part of the nodes is looked at, beginning at
/// `start`; of equally good nodes the first from there is taken, so that a caller that moves on spreads pods evenly.
pub fn cycle(snapshot: &Snapshot, profile: &Profile, pod: &PodInfo, start: usize) -> Decision {
    let nodes = snapshot.nodes();
    let mut diagnosis = Diagnosis::new(nodes.len());
    for filter in &profile.filters {
        if let Some(before) = filter.pre_filter(pod, snapshot) {
            diagnosis.before = Some(before);
            diagnosis.rejected_by.insert(filter.name());
            return Decision::Unschedulable(diagnosis);
        }
    }
    let candidates = candidates(snapshot, profile, pod);
    let order: Box<dyn Iterator<Item = &NodeInfo>> = match &candidates {
        Some(candidates) => Box::new(candidates.nodes.iter().copied()),
        None => {
            let start = if nodes.is_empty() { 0 } else { start % nodes.len() };
            Box::new(nodes[start..].iter().chain(&nodes[..start]))
        }
    };
    let wanted = feasible_nodes_to_find(nodes.len());
    let mut feasible = Vec::with_capacity(wanted.min(nodes.len()));
    let mut evaluated = 0;
    for node in order {
        evaluated += 1;
        let rejection = profile.filters.iter().find_map(|filter| match filter.filter(pod, node, snapshot) {
            Verdict::Feasible => None,
            rejection => Some((filter.name(), rejection)),
        });
        match rejection {
            Some((plugin, rejection)) => diagnosis.add(plugin, rejection),
            None => feasible.push(node),
        }
        if feasible.len() >= wanted {
            break;
        }
    }
    match best(snapshot, profile, pod, &feasible) {
        Some(node) => Decision::Bind { node: node.name.clone(), evaluated },
        None => {
            if let Some(candidates) = candidates {
                diagnosis.add_absent(&candidates.plugins, nodes.len() - candidates.nodes.len());
            }
            Decision::Unschedulable(diagnosis)
        }
    }
}

/// The nodes to which some plugins restrict the choice.
struct Candidates<'a> {
    nodes: Vec<&'a NodeInfo>,
    plugins: BTreeSet<&'static str>,
}

fn candidates<'a>(snapshot: &'a Snapshot, profile: &Profile, pod: &PodInfo) -> Option<Candidates<'a>> {
    let mut found: Option<(Vec<&str>, BTreeSet<&'static str>)> = None;
    for filter in &profile.filters {
        let Some(names) = filter.candidates(pod) else { continue };
        let (kept, plugins) = found.get_or_insert_with(|| (names.clone(), BTreeSet::new()));
        kept.retain(|name| names.contains(name));
        plugins.insert(filter.name());
    }
    let (names, plugins) = found?;
    Some(Candidates { nodes: names.into_iter().filter_map(|name| snapshot.node(name)).collect(), plugins })
}

/// How many nodes that will do are enough, as in Kubernetes: all in a small cluster, half in one of a hundred nodes, going down
/// to a twentieth of very many.
fn feasible_nodes_to_find(node_count: usize) -> usize {
    if node_count < MIN_FEASIBLE_NODES {
        return node_count;
    }
    let percentage = 50_usize.saturating_sub(node_count / 125).max(5);
    (node_count * percentage / 100).max(MIN_FEASIBLE_NODES)
}

/// The first of the nodes with the highest score.
fn best<'a>(
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
    feasible: &[&'a NodeInfo],
) -> Option<&'a NodeInfo> {
    if feasible.len() <= 1 {
        return feasible.first().copied();
    }
    let mut totals = vec![0; feasible.len()];
    let mut scores = vec![0; feasible.len()];
    for weighted in profile.scores.iter().filter(|weighted| weighted.plugin.is_concerned(pod)) {
        for (score, node) in scores.iter_mut().zip(feasible) {
            *score = weighted.plugin.score(pod, node, snapshot);
        }
        weighted.plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += weighted.weight * score;
        }
    }
    let mut best = 0;
    for (at, total) in totals.iter().enumerate() {
        if *total > totals[best] {
            best = at;
        }
    }
    feasible.get(best).copied()
}

#[cfg(test)]
mod tests;

//! What a plugin is, and which plugins a profile has.

use std::borrow::Cow;
use std::fmt::Debug;

use crate::plugins;
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// The best score a plugin can give to a node.
pub const MAX_NODE_SCORE: i64 = 100;

/// Why a node will not do, in Kubernetes' words.
pub type Reason = Cow<'static, str>;

/// What a filter says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The pod can run there.
    Feasible,
    /// It cannot, but could if other pods were not there.
    Unschedulable(Vec<Reason>),
    /// It cannot, whatever pods are there.
    UnschedulableAndUnresolvable(Vec<Reason>),
}

impl Verdict {
    /// Not on this node, for one reason that other pods have no part in.
    pub fn unresolvable(reason: &'static str) -> Self {
        Self::UnschedulableAndUnresolvable(vec![Cow::Borrowed(reason)])
    }
}

/// What has changed in the cluster, for pods that wait for a change.
#[derive(Debug, Clone, Copy)]
pub enum ClusterEvent<'a> {
    /// A node has come.
    NodeAdded(&'a NodeInfo),
    /// A node's spec, labels or allocatable resources are not what they were.
    NodeUpdated(&'a NodeInfo),
    /// A pod that was assigned to a node is gone or has ended.
    AssignedPodGone(&'a PodInfo),
    /// A claim, a volume or a class of storage has come or changed.
    VolumesChanged,
}

/// Decides whether a pod may enter the queue at all.
pub trait PreEnqueue: Debug + Send + Sync {
    /// The plugin's name, as in Kubernetes.
    fn name(&self) -> &'static str;

    /// Whether scheduling may be tried.
    fn is_admitted(&self, pod: &PodInfo) -> bool;
}

/// Decides which nodes a pod can run on.
pub trait Filter: Debug + Send + Sync {
    /// The plugin's name, as in Kubernetes.
    fn name(&self) -> &'static str;

    /// The names of the only nodes that can pass, if these are few and known beforehand.
    fn candidates<'a>(&self, _pod: &'a PodInfo) -> Option<Vec<&'a str>> {
        None
    }

    /// Why the pod cannot run on any node, whatever node it is; asked before the nodes are looked at.
    fn pre_filter(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<String> {
        None
    }

    /// Whether the pod can run on this node.
    fn filter(&self, pod: &PodInfo, node: &NodeInfo, cluster: &Snapshot) -> Verdict;

    /// Whether the event may be what a pod has waited for that this plugin rejected.
    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool;
}

/// Decides which of the nodes that will do is best.
pub trait Score: Debug + Send + Sync {
    /// The plugin's name, as in Kubernetes.
    fn name(&self) -> &'static str;

    /// Whether it has anything to say about this pod.
    fn is_concerned(&self, _pod: &PodInfo) -> bool {
        true
    }

    /// How good the node is.
    fn score(&self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> i64;

    /// Brings the scores of all feasible nodes into 0 to [`MAX_NODE_SCORE`], if `score` did not.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Scales scores so that the greatest becomes [`MAX_NODE_SCORE`], or 0 if less is better.
pub fn normalize_by_greatest(scores: &mut [i64], less_is_better: bool) {
    let greatest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if greatest > 0 {
            *score = *score * MAX_NODE_SCORE / greatest;
        }
        if less_is_better {
            *score = MAX_NODE_SCORE - *score;
        }
    }
}

/// A score plugin and how much it counts.
#[derive(Debug)]
pub struct WeightedScore {
    /// Multiplies its scores.
    pub weight: i64,
    /// The plugin.
    pub plugin: Box<dyn Score>,
}

/// The plugins for the pods that name this scheduler.
#[derive(Debug)]
pub struct Profile {
    /// A pod's `schedulerName`.
    pub scheduler_name: String,
    /// In the order in which they are asked.
    pub pre_enqueue: Vec<Box<dyn PreEnqueue>>,
    /// In the order in which they are asked; the first that rejects a node gives the reason.
    pub filters: Vec<Box<dyn Filter>>,
    /// All are asked.
    pub scores: Vec<WeightedScore>,
}

impl Profile {
    /// The plugins and weights of Kubernetes' default profile, as far as there are such plugins here.
    pub fn default_plugins(scheduler_name: impl Into<String>) -> Self {
        let score = |weight, plugin| WeightedScore { weight, plugin };
        Self {
            scheduler_name: scheduler_name.into(),
            pre_enqueue: vec![Box::new(plugins::SchedulingGates)],
            filters: vec![
                Box::new(plugins::NodeUnschedulable),
                Box::new(plugins::NodeName),
                Box::new(plugins::TaintToleration),
                Box::new(plugins::NodeAffinity),
                Box::new(plugins::NodePorts),
                Box::new(plugins::NodeResourcesFit),
                Box::new(plugins::VolumeRestrictions),
                Box::new(plugins::VolumeBinding),
                Box::new(plugins::VolumeZone),
            ],
            scores: vec![
                score(3, Box::new(plugins::TaintToleration)),
                score(2, Box::new(plugins::NodeAffinity)),
                score(1, Box::new(plugins::NodeResourcesFit)),
                score(1, Box::new(plugins::NodeResourcesBalancedAllocation)),
                score(1, Box::new(plugins::ImageLocality)),
            ],
        }
    }

    /// The first gate that keeps the pod out of the queue.
    pub fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        self.pre_enqueue.iter().find(|plugin| !plugin.is_admitted(pod)).map(|plugin| plugin.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_scaled_by_the_greatest() {
        for (scores, less_is_better, expected) in [
            (vec![1, 2, 4], false, vec![25, 50, 100]),
            (vec![1, 2, 4], true, vec![75, 50, 0]),
            (vec![0, 0], false, vec![0, 0]),
            (vec![0, 0], true, vec![100, 100]),
        ] {
            let mut scaled = scores.clone();
            normalize_by_greatest(&mut scaled, less_is_better);
            assert_eq!(scaled, expected, "{scores:?}");
        }
    }
}

//! Why a pod could not be scheduled, in Kubernetes' words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::framework::{Reason, Verdict};

/// How many nodes will not do for which reasons, and which plugins said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub node_count: usize,
    /// How many nodes have the reason.
    pub reasons: BTreeMap<Reason, usize>,
    /// Why no node was looked at, if a plugin knew beforehand that none will do.
    pub before: Option<String>,
    /// The plugins whose rejection must change before another attempt can succeed.
    pub rejected_by: BTreeSet<&'static str>,
}

impl Diagnosis {
    pub(crate) fn new(node_count: usize) -> Self {
        Self { node_count, ..Self::default() }
    }

    pub(crate) fn add(&mut self, plugin: &'static str, verdict: Verdict) {
        let (Verdict::Unschedulable(reasons) | Verdict::UnschedulableAndUnresolvable(reasons)) = verdict
        else {
            return;
        };
        self.rejected_by.insert(plugin);
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// Nodes that were not even looked at, since the plugins name others.
    pub(crate) fn add_absent(&mut self, plugins: &BTreeSet<&'static str>, count: usize) {
        if count > 0 {
            let plugins = Vec::from_iter(plugins.iter().copied()).join(" ");
            *self
                .reasons
                .entry(format!("node(s) didn't satisfy plugin(s) [{plugins}]").into())
                .or_default() += count;
        }
        self.rejected_by.extend(plugins);
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node_count == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.node_count)?;
        if let Some(before) = &self.before {
            return write!(f, " {before}.");
        }
        // Ordered as text, count and all, as Kubernetes does.
        let mut reasons: Vec<_> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort_unstable();
        if reasons.is_empty() { Ok(()) } else { write!(f, " {}.", reasons.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_ordered_as_kubernetes_does() {
        let mut diagnosis = Diagnosis::new(13);
        for _ in 0..2 {
            diagnosis.add("NodeResourcesFit", Verdict::Unschedulable(vec!["Insufficient cpu".into()]));
        }
        diagnosis.add(
            "NodeResourcesFit",
            Verdict::Unschedulable(vec!["Insufficient cpu".into(), "Insufficient memory".into()]),
        );
        for _ in 0..10 {
            diagnosis.add("TaintToleration", Verdict::unresolvable("node(s) had untolerated taint(s)"));
        }
        assert_eq!(
            diagnosis.to_string(),
            "0/13 nodes are available: 1 Insufficient memory, 10 node(s) had untolerated taint(s), 3 Insufficient cpu."
        );
        assert_eq!(Vec::from_iter(diagnosis.rejected_by), ["NodeResourcesFit", "TaintToleration"]);
        let before = Diagnosis { before: Some("pod has a problem".to_owned()), ..Diagnosis::new(2) };
        assert_eq!(before.to_string(), "0/2 nodes are available: pod has a problem.");
        assert_eq!(Diagnosis::new(0).to_string(), "no nodes available to schedule pods");
    }
}

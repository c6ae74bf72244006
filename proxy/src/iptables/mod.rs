//! The iptables backend, for machines without nftables: packets are translated by the kernel, by rules that
//! `iptables-restore` writes.
//!
//! Chains of our own only, all called `WHERRY-…`. A change rewrites the chains of the Services that changed, and adds or
//! deletes single rules in the chains that all share; the program itself may still read everything at every change. Session
//! affinity is the kernel's `recent` match, which remembers 100 clients of an endpoint unless the module was told otherwise.
//!
//! Source: kube-proxy's iptables mode, whose semantics these are.

mod layout;
mod plan;
mod restore;

use std::{collections::BTreeMap, fmt::Write as _, io, sync::Arc};

use async_trait::async_trait;

use crate::{
    Config,
    backend::{Applied, Backend, BackendError},
    conntrack,
    network::Network,
    rules::{Difference, Family, Ruleset},
};
use layout::{IPS_CHAIN, NODE_PORTS_CHAIN, REFUSED_IPS_CHAIN, REFUSED_NODE_PORTS_CHAIN};
use plan::PortPlan;
use restore::{FILTER, Found, NAT, TABLES, Table};

/// Rules in the kernel's tables.
#[derive(Debug)]
pub struct Iptables {
    network: Network,
    /// `None`: unknown, everything is made anew.
    in_force: Option<Arc<Ruleset>>,
}

impl Iptables {
    /// Nothing is changed yet.
    pub fn new(config: &Config) -> Self {
        Self { network: Network::new(config), in_force: None }
    }

    /// Whether the programs are there and may be used.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe() -> io::Result<()> {
        for family in Family::ALL {
            restore::restore(family, "*nat\nCOMMIT\n".to_owned()).await?;
        }
        Ok(())
    }

    /// Remove the chains, of this run or a former one.
    ///
    /// # Errors
    /// A program fails. That there is none is no error: then there are no chains.
    pub async fn clean_up() -> Result<(), BackendError> {
        for family in Family::ALL {
            match clean_up(family).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(BackendError::Step { step: "remove the iptables rules", source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn replace(&self, ruleset: &Ruleset) -> io::Result<()> {
        for family in Family::ALL {
            let mut input = String::new();
            for table in TABLES {
                let found = restore::save(family, table).await?;
                write_all(&mut input, table, family, ruleset, &self.network, &found);
            }
            restore::restore(family, input).await?;
        }
        Ok(())
    }

    async fn change(&self, differences: &[Difference<'_>]) -> io::Result<()> {
        for family in Family::ALL {
            let input = changes(family, differences, &self.network);
            if !input.is_empty() {
                restore::restore(family, input).await?;
            }
        }
        Ok(())
    }

    async fn is_in_force(&self, ruleset: &Ruleset) -> io::Result<bool> {
        for family in Family::ALL {
            for table in TABLES {
                let found = restore::save(family, table).await?;
                let wanted = wanted(table, family, ruleset, &self.network);
                let counts: BTreeMap<&str, usize> =
                    wanted.iter().map(|(chain, rules)| (chain.as_str(), rules.len())).collect();
                let has_jumps = found.jumps.len() == layout::jumps(table).len();
                let found = found.chains.iter().map(|(chain, rules)| (chain.as_str(), *rules));
                if !has_jumps || !found.eq(counts) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

#[async_trait]
impl Backend for Iptables {
    async fn apply(&mut self, ruleset: &Arc<Ruleset>) -> Result<Applied, BackendError> {
        let old = self.in_force.take();
        let none = Ruleset::default();
        let differences = Ruleset::differences(old.as_deref().unwrap_or(&none), ruleset);
        let done = match &old {
            Some(_) => self.change(&differences).await,
            None => self.replace(ruleset).await,
        };
        done.map_err(BackendError::at("change the iptables rules"))?;
        self.in_force = Some(Arc::clone(ruleset));
        let changed = differences.len();
        if changed > 0 {
            let (old, new) = (old.unwrap_or_default(), Arc::clone(ruleset));
            let forget = move || conntrack::forget_stale(&Ruleset::differences(&old, &new));
            match tokio::task::spawn_blocking(forget).await.map_err(io::Error::other) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) | Err(error) => {
                    tracing::warn!(%error, "cannot remove the flows of endpoints that are gone");
                }
            }
        }
        Ok(Applied { changed, unserved: 0 })
    }

    async fn verify(&mut self) -> Result<bool, BackendError> {
        let Some(ruleset) = self.in_force.clone() else { return Ok(false) };
        let is_right =
            self.is_in_force(&ruleset).await.map_err(BackendError::at("read the iptables rules"))?;
        if !is_right {
            self.in_force = None;
        }
        Ok(is_right)
    }

    async fn close(self: Box<Self>) {}
}

/// Chains by name, with their rules.
type Chains = BTreeMap<String, Vec<String>>;

/// The chains of a table as they shall be. Pure.
fn wanted(table: Table, family: Family, ruleset: &Ruleset, network: &Network) -> Chains {
    let mut chains: Chains = layout::chains(table, family, network)
        .into_iter()
        .map(|(name, rules)| (name.to_owned(), rules))
        .collect();
    for (name, rule) in ruleset.ports.iter().filter(|(name, _)| name.family == family) {
        let plan = PortPlan::new(name, rule, network);
        for (chain, rules) in shared(table, &plan) {
            chains.entry(chain.to_owned()).or_default().extend(rules.iter().cloned());
        }
        if table == NAT {
            chains.extend(plan.chains);
        }
    }
    chains
}

/// The rules in the chains that all Services share.
fn shared(table: Table, plan: &PortPlan) -> [(&'static str, &Vec<String>); 2] {
    match table {
        NAT => [(IPS_CHAIN, &plan.ips), (NODE_PORTS_CHAIN, &plan.node_ports)],
        _ => [(REFUSED_IPS_CHAIN, &plan.refused_ips), (REFUSED_NODE_PORTS_CHAIN, &plan.refused_node_ports)],
    }
}

fn line(input: &mut String, words: std::fmt::Arguments<'_>) {
    let _infallible = input.write_fmt(words);
    input.push('\n');
}

/// A table anew, whatever of ours it holds. Pure.
fn write_all(
    input: &mut String,
    table: Table,
    family: Family,
    ruleset: &Ruleset,
    network: &Network,
    found: &Found,
) {
    let wanted = wanted(table, family, ruleset, network);
    line(input, format_args!("*{table}"));
    for chain in wanted.keys().chain(found.chains.keys().filter(|chain| !wanted.contains_key(*chain))) {
        line(input, format_args!(":{chain} - [0:0]"));
    }
    for (chain, rule) in &found.jumps {
        line(input, format_args!("-D {chain} {rule}"));
    }
    for (chain, rules) in &wanted {
        for rule in rules {
            line(input, format_args!("-A {chain} {rule}"));
        }
    }
    for (chain, rule) in layout::jumps(table) {
        line(input, format_args!("-I {chain} {rule}"));
    }
    for chain in found.chains.keys().filter(|chain| !wanted.contains_key(*chain)) {
        line(input, format_args!("-X {chain}"));
    }
    line(input, format_args!("COMMIT"));
}

/// What differs; empty if nothing does. Pure.
fn changes(family: Family, differences: &[Difference<'_>], network: &Network) -> String {
    let of_family = differences.iter().filter(|difference| difference.name.family == family);
    let plans: Vec<(PortPlan, PortPlan)> = of_family
        .map(|difference| {
            let plan = |rule: Option<&Arc<crate::rules::PortRule>>| {
                rule.map(|rule| PortPlan::new(difference.name, rule, network)).unwrap_or_default()
            };
            (plan(difference.old), plan(difference.new))
        })
        .collect();
    let mut input = String::new();
    for table in [NAT, FILTER] {
        let mut lines = String::new();
        if table == NAT {
            let changed = |(old, new): &(PortPlan, PortPlan)| -> Vec<(String, Vec<String>)> {
                let differs = |chain: &String, rules: &Vec<String>| old.chains.get(chain) != Some(rules);
                let chains = new.chains.iter().filter(|(chain, rules)| differs(chain, rules));
                chains.map(|(chain, rules)| (chain.clone(), rules.clone())).collect()
            };
            let changed: Vec<_> = plans.iter().flat_map(changed).collect();
            for (chain, _) in &changed {
                line(&mut lines, format_args!(":{chain} - [0:0]"));
            }
            for (chain, rules) in &changed {
                for rule in rules {
                    line(&mut lines, format_args!("-A {chain} {rule}"));
                }
            }
        }
        for (old, new) in &plans {
            for ((chain, old), (_, new)) in shared(table, old).into_iter().zip(shared(table, new)) {
                for rule in old.iter().filter(|rule| !new.contains(rule)) {
                    line(&mut lines, format_args!("-D {chain} {rule}"));
                }
                for rule in new.iter().filter(|rule| !old.contains(rule)) {
                    line(&mut lines, format_args!("-A {chain} {rule}"));
                }
            }
        }
        if table == NAT {
            let gone: Vec<&String> = plans
                .iter()
                .flat_map(|(old, new)| old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)))
                .collect();
            for chain in &gone {
                line(&mut lines, format_args!("-F {chain}"));
            }
            for chain in &gone {
                line(&mut lines, format_args!("-X {chain}"));
            }
        }
        if !lines.is_empty() {
            line(&mut input, format_args!("*{table}"));
            input.push_str(&lines);
            line(&mut input, format_args!("COMMIT"));
        }
    }
    input
}

async fn clean_up(family: Family) -> io::Result<()> {
    let mut input = String::new();
    for table in TABLES {
        let found = restore::save(family, table).await?;
        if found == Found::default() {
            continue;
        }
        line(&mut input, format_args!("*{table}"));
        for chain in found.chains.keys() {
            line(&mut input, format_args!(":{chain} - [0:0]"));
        }
        for (chain, rule) in &found.jumps {
            line(&mut input, format_args!("-D {chain} {rule}"));
        }
        for chain in found.chains.keys() {
            line(&mut input, format_args!("-X {chain}"));
        }
        line(&mut input, format_args!("COMMIT"));
    }
    if input.is_empty() { Ok(()) } else { restore::restore(family, input).await }
}

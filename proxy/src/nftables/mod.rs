//! The nftables backend: packets are translated by the kernel, by rules that are written over netlink.
//!
//! One table `wherry` in each family. A packet finds its Service by one look-up, so that neither the number of Services nor
//! a change of another Service costs it anything; a change of a Service is one transaction with that Service's own chains,
//! maps and elements. The first transaction replaces the table of a former run.
//!
//! Source: linux/netfilter/nf_tables.h; the semantics are those of kube-proxy's nftables mode (KEP-3866).

mod batch;
#[expect(clippy::wrong_self_convention, reason = "a rule reads as a sentence: of packets, those that are so")]
mod expressions;
mod layout;
mod plan;
mod service;
mod socket;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
};

use async_trait::async_trait;

use crate::network::Network;
use crate::{
    Config,
    backend::{Applied, Backend, BackendError},
    conntrack,
    rules::{Difference, Family, PortName, PortRule, Ruleset},
};
use batch::{Batch, Element, Value};
use plan::{Chain, ElementKey, PortPlan};
use socket::Refused;

/// How often a transaction is tried when others change the rules at the same moment.
const ATTEMPTS: usize = 16;

/// An element that may be there for several ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    value: Value,
    count: usize,
}

/// What is in the kernel.
#[derive(Debug, Clone, Default)]
struct InForce {
    ruleset: Arc<Ruleset>,
    elements: HashMap<(Family, ElementKey), Counted>,
    /// The chains that do not depend on Services, with the number of their rules.
    base_chains: Vec<(Family, &'static str, usize)>,
    /// The generation of the machine's rules after the last change that was ours.
    generation: u32,
}

/// Rules in nf_tables.
#[derive(Debug)]
pub struct Nftables {
    network: Arc<Network>,
    /// `None`: unknown, everything is made anew.
    in_force: Option<InForce>,
}

impl Nftables {
    /// Nothing is changed yet.
    pub fn new(config: &Config) -> Self {
        Self { network: Arc::new(Network::new(config)), in_force: None }
    }

    /// Whether this process may use nf_tables here.
    ///
    /// # Errors
    /// Why not.
    pub fn probe() -> io::Result<()> {
        let generation = socket::generation()?;
        // A table that is deleted in the same transaction: needs the right, and changes nothing.
        let mut batch = Batch::new(generation);
        batch.add_scratch_table();
        match socket::commit(batch) {
            // Somebody else is just using it.
            Ok(()) | Err(Refused::Outdated) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Remove the tables, of this run or a former one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn clean_up() -> Result<(), BackendError> {
        blocking(|| {
            commit(None, |batch| {
                for family in Family::ALL {
                    batch.add_table(family);
                    batch.delete_table(family);
                }
            })
        })
        .await
        .map(drop)
        .map_err(BackendError::at("remove the nftables rules"))
    }
}

#[async_trait]
impl Backend for Nftables {
    async fn apply(&mut self, ruleset: &Arc<Ruleset>) -> Result<Applied, BackendError> {
        let in_force = self.in_force.take();
        let (network, new) = (Arc::clone(&self.network), Arc::clone(ruleset));
        let (in_force, applied) = blocking(move || match in_force {
            Some(in_force) => change(in_force, new, &network),
            None => replace(new, &network),
        })
        .await
        .map_err(BackendError::at("change the nftables rules"))?;
        self.in_force = Some(in_force);
        Ok(applied)
    }

    async fn verify(&mut self) -> Result<bool, BackendError> {
        let Some(in_force) = self.in_force.take() else { return Ok(false) };
        let network = Arc::clone(&self.network);
        let (in_force, is_right) = blocking(move || {
            let mut in_force = in_force;
            let is_right = is_in_force(&mut in_force, &network)?;
            Ok((in_force, is_right))
        })
        .await
        .map_err(BackendError::at("read the nftables rules"))?;
        self.in_force = is_right.then_some(in_force);
        Ok(is_right)
    }

    async fn close(self: Box<Self>) {}
}

/// Netlink calls are answered by the kernel before they return; with many rules that takes a while.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Write a batch for the present generation, and send it; again if somebody else was quicker. Returns the generation after.
fn commit(known: Option<u32>, write: impl Fn(&mut Batch)) -> io::Result<(u32, bool)> {
    let mut generation = match known {
        Some(generation) => generation,
        None => socket::generation()?,
    };
    let mut is_as_known = true;
    for _ in 0..ATTEMPTS {
        let mut batch = Batch::new(generation);
        write(&mut batch);
        if batch.is_empty() {
            return Ok((generation, is_as_known));
        }
        match socket::commit(batch) {
            Ok(()) => return Ok((socket::next_generation(generation), is_as_known)),
            Err(Refused::Outdated) => {
                is_as_known = false;
                generation = socket::generation()?;
            }
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(Refused::Outdated.into())
}

/// Everything anew, in one transaction: there is no moment without rules.
fn replace(ruleset: Arc<Ruleset>, network: &Network) -> io::Result<(InForce, Applied)> {
    let mut plans = BTreeMap::new();
    let mut elements = HashMap::new();
    for (name, rule) in &ruleset.ports {
        let plan = PortPlan::new(name, rule);
        count(&mut elements, name.family, &plan);
        plans.insert(name, plan);
    }
    let base_chains = std::cell::RefCell::new(Vec::new());
    let (generation, _) = commit(None, |batch| {
        base_chains.borrow_mut().clear();
        for family in Family::ALL {
            let chains = layout::add(batch, family, network);
            base_chains.borrow_mut().extend(chains.into_iter().map(|(name, rules)| (family, name, rules)));
        }
        for (name, plan) in &plans {
            for (chain, what) in &plan.chains {
                batch.add_chain(name.family, chain, None);
                service::add_clients(batch, name.family, chain, what);
            }
        }
        for (name, plan) in &plans {
            for (chain, what) in &plan.chains {
                service::fill(batch, name.family, chain, what, network);
            }
        }
        let all: Vec<_> = elements.iter().map(|(key, counted)| (key, &counted.value)).collect();
        write_elements(&all, |family, set, elements| batch.add_elements(family, set, None, elements));
    })?;
    let changed = ruleset.ports.len();
    forget_flows(&Ruleset::differences(&Ruleset::default(), &ruleset));
    let in_force = InForce { ruleset, elements, base_chains: base_chains.into_inner(), generation };
    Ok((in_force, Applied { changed, unserved: 0 }))
}

/// Only what differs.
fn change(mut in_force: InForce, ruleset: Arc<Ruleset>, network: &Network) -> io::Result<(InForce, Applied)> {
    let old_ruleset = Arc::clone(&in_force.ruleset);
    let differences = Ruleset::differences(&old_ruleset, &ruleset);
    if differences.is_empty() {
        in_force.ruleset = ruleset;
        return Ok((in_force, Applied::default()));
    }
    let changes: Vec<Change<'_>> = differences.iter().map(Change::new).collect();
    let (removed, added) = recount(&mut in_force.elements, &changes);
    let (generation, is_as_known) = commit(Some(in_force.generation), |batch| {
        for change in &changes {
            change.add_chains(batch);
        }
        for change in &changes {
            change.empty(batch);
        }
        write_elements(&removed, |family, set, elements| batch.delete_elements(family, set, elements));
        for change in &changes {
            change.remove_clients(batch);
        }
        for change in &changes {
            change.fill(batch, network);
        }
        write_elements(&added, |family, set, elements| batch.add_elements(family, set, None, elements));
        for change in &changes {
            change.remove(batch);
        }
    })?;
    // What others changed meanwhile is looked into at the next comparison.
    in_force.generation = if is_as_known { generation } else { generation.wrapping_sub(1) };
    forget_flows(&differences);
    let changed = differences.len();
    in_force.ruleset = ruleset;
    Ok((in_force, Applied { changed, unserved: 0 }))
}

/// A Service port as it was and as it shall be.
struct Change<'a> {
    name: &'a PortName,
    old: PortPlan,
    new: PortPlan,
}

impl<'a> Change<'a> {
    fn new(difference: &Difference<'a>) -> Self {
        let plan = |rule: Option<&Arc<PortRule>>| {
            rule.map(|rule| PortPlan::new(difference.name, rule)).unwrap_or_default()
        };
        Self { name: difference.name, old: plan(difference.old), new: plan(difference.new) }
    }

    /// The chains that are there and shall be other than they are.
    fn changed(&self) -> impl Iterator<Item = (&String, &Chain)> {
        let chains = self.new.chains.iter();
        chains.filter(|(chain, what)| self.old.chains.get(*chain).is_some_and(|old| old != *what))
    }

    fn added(&self) -> impl Iterator<Item = (&String, &Chain)> {
        self.new.chains.iter().filter(|(chain, _)| !self.old.chains.contains_key(*chain))
    }

    fn gone(&self) -> impl Iterator<Item = (&String, &Chain)> {
        self.old.chains.iter().filter(|(chain, _)| !self.new.chains.contains_key(*chain))
    }

    /// First: chains that are new are there before anything leads to them.
    fn add_chains(&self, batch: &mut Batch) {
        for (chain, what) in self.added() {
            batch.add_chain(self.name.family, chain, None);
            service::add_clients(batch, self.name.family, chain, what);
        }
    }

    /// Then: no rule leads anywhere, or looks into anything, that goes.
    fn empty(&self, batch: &mut Batch) {
        for (chain, _) in self.changed().chain(self.gone()) {
            batch.flush_chain(self.name.family, chain);
        }
    }

    /// Sets of clients with another timeout are other sets.
    fn remove_clients(&self, batch: &mut Batch) {
        for (chain, what) in self.changed().filter(|(_, what)| what.has_clients()) {
            batch.delete_set(self.name.family, chain);
            service::add_clients(batch, self.name.family, chain, what);
        }
    }

    fn fill(&self, batch: &mut Batch, network: &Network) {
        for (chain, what) in self.changed().chain(self.added()) {
            service::fill(batch, self.name.family, chain, what, network);
        }
    }

    /// Last: nothing leads to these any more.
    fn remove(&self, batch: &mut Batch) {
        for (chain, what) in self.gone() {
            batch.delete_chain(self.name.family, chain);
            if what.has_clients() {
                batch.delete_set(self.name.family, chain);
            }
        }
    }
}

fn count(elements: &mut HashMap<(Family, ElementKey), Counted>, family: Family, plan: &PortPlan) {
    for (key, value) in &plan.elements {
        let counted = elements
            .entry((family, key.clone()))
            .or_insert_with(|| Counted { value: value.clone(), count: 0 });
        counted.count += 1;
        counted.value = value.clone();
    }
}

type FullKey = (Family, ElementKey);

/// An element of a map of the table.
type FullElement = (FullKey, Value);

/// Count the elements as they shall be; returns those to delete and those to add.
fn recount(
    elements: &mut HashMap<FullKey, Counted>,
    changes: &[Change<'_>],
) -> (Vec<FullElement>, Vec<FullElement>) {
    let mut before: HashMap<FullKey, Option<Value>> = HashMap::new();
    for change in changes {
        for (key, _) in change.old.elements.iter().chain(&change.new.elements) {
            let key = (change.name.family, key.clone());
            let value = elements.get(&key).map(|counted| counted.value.clone());
            before.insert(key, value);
        }
    }
    for change in changes {
        for (key, _) in &change.old.elements {
            let key = (change.name.family, key.clone());
            if let Some(counted) = elements.get_mut(&key) {
                counted.count = counted.count.saturating_sub(1);
                if counted.count == 0 {
                    elements.remove(&key);
                }
            }
        }
    }
    for change in changes {
        count(elements, change.name.family, &change.new);
    }
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    for (key, old) in before {
        let new = elements.get(&key).map(|counted| counted.value.clone());
        if old != new {
            removed.extend(old.map(|value| (key.clone(), value)));
            added.extend(new.map(|value| (key, value)));
        }
    }
    (removed, added)
}

/// Elements grouped by their set.
trait AsElement {
    fn parts(&self) -> (&FullKey, &Value);
}

impl AsElement for (FullKey, Value) {
    fn parts(&self) -> (&FullKey, &Value) {
        (&self.0, &self.1)
    }
}

impl AsElement for (&FullKey, &Value) {
    fn parts(&self) -> (&FullKey, &Value) {
        (self.0, self.1)
    }
}

fn write_elements(all: &[impl AsElement], mut write: impl FnMut(Family, &str, &[Element<'_>])) {
    let mut by_set: BTreeMap<(Family, &str), Vec<Element<'_>>> = BTreeMap::new();
    for ((family, (set, key)), value) in all.iter().map(AsElement::parts) {
        by_set.entry((*family, set)).or_default().push(Element { key, value });
    }
    for ((family, set), elements) in by_set {
        write(family, set, &elements);
    }
}

/// A UDP client of an endpoint that is gone would go on sending to it for as long as it sends.
fn forget_flows(differences: &[Difference<'_>]) {
    if let Err(error) = conntrack::forget_stale(differences) {
        tracing::warn!(%error, "cannot remove the flows of endpoints that are gone");
    }
}

/// Whether the table is what we made it. If nobody changed any rule on this machine since, nothing is looked at.
fn is_in_force(in_force: &mut InForce, network: &Network) -> io::Result<bool> {
    let generation = socket::generation()?;
    if generation == in_force.generation {
        return Ok(true);
    }
    let mut wanted: BTreeMap<(Family, String), usize> = in_force
        .base_chains
        .iter()
        .map(|(family, name, rules)| ((*family, (*name).to_owned()), *rules))
        .collect();
    for (name, rule) in &in_force.ruleset.ports {
        for (chain, what) in PortPlan::new(name, rule).chains {
            wanted.insert((name.family, chain), what.rules(network, name.family));
        }
    }
    let mut keys: HashMap<(Family, &str), HashSet<&[u8]>> = HashMap::new();
    for (family, (set, key)) in in_force.elements.keys() {
        keys.entry((*family, set)).or_default().insert(key);
    }
    for family in Family::ALL {
        let found = socket::chains(family)?;
        let of_family = wanted.iter().filter(|((of, _), _)| *of == family);
        if !found.iter().eq(of_family.map(|((_, name), rules)| (name, rules))) {
            tracing::debug!(?family, "chains differ");
            return Ok(false);
        }
        for set in [
            layout::SERVICE_IPS,
            layout::SERVICE_NODE_PORTS,
            layout::REFUSED_IPS,
            layout::REFUSED_NODE_PORTS,
            layout::FIREWALL_IPS,
            layout::CLUSTER_IPS,
            layout::HAIRPINS,
        ] {
            let found = socket::keys(family, set)?;
            let found: HashSet<&[u8]> = found.iter().map(Vec::as_slice).collect();
            if found != keys.remove(&(family, set)).unwrap_or_default() {
                tracing::debug!(?family, set, "elements differ");
                return Ok(false);
            }
        }
    }
    in_force.generation = generation;
    Ok(true)
}

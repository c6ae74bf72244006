//! Which writes lead from what is in force to what is asked for: a pure function.
//!
//! *Guarantees.* After every single write, every frontend that the maps hold has all its slots, and each of them is an endpoint
//! that the frontend had before or will have. One endpoint more, less, or another one costs a few writes, however many there are;
//! a larger change costs as many as there are endpoints. What was left half done is completed from what the maps hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    demand::Demand,
    layout::{Address, Member, Record, Slot},
};
use crate::rules::{PortName, TrafficPolicy};

/// Frontends that the maps have room for: `max_entries` of map `frontends`.
const MAX_FRONTENDS: usize = 131_072;
/// Endpoints of all frontends together; half of `max_entries` of maps `slots` and `members`, so that a change has room.
const MAX_ENDPOINTS: usize = 262_144;

/// The maps' content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) frontends: HashMap<Address, Record>,
    pub(super) slots: HashMap<Slot, Address>,
    pub(super) members: HashSet<Member>,
}

/// One write to a map, which happens wholly or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    PutFrontend(Address, Record),
    DeleteFrontend(Address),
    PutSlot(Slot, Address),
    DeleteSlot(Slot),
    PutMember(Member),
    DeleteMember(Member),
}

/// What a Service port asks for from now on; nothing if it is gone.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) name: PortName,
    pub(super) demands: Vec<Demand>,
}

/// What to do about some changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) writes: Vec<Write>,
    /// Service ports that found no room, or whose address another one has already.
    pub(super) unserved: usize,
}

/// Slots in force, with their endpoints in the slots' order.
#[derive(Debug, Default)]
struct Pool {
    generation: u32,
    endpoints: Vec<Address>,
    members: BTreeSet<Address>,
    is_claimed: bool,
}

#[derive(Debug)]
struct Claim {
    policy: TrafficPolicy,
    id: u32,
    addresses: Vec<Address>,
}

/// What is in force, and for whom.
#[derive(Debug, Default)]
pub(super) struct State {
    records: HashMap<Address, Record>,
    pools: HashMap<u32, Pool>,
    claims: HashMap<PortName, Vec<Claim>>,
    owners: HashMap<Address, PortName>,
    endpoints: usize,
    last_id: u32,
    /// Read from the maps and of no use.
    garbage: Vec<Write>,
    /// Whether everything that nobody claims in the next plan is to go.
    is_adopted: bool,
}

impl State {
    /// What these maps hold, of which nobody knows yet for whom. The next plan must be about everything that is asked for: what
    /// fits is taken over, and the rest removed.
    pub(super) fn adopt(tables: &Tables) -> Self {
        let mut state = Self { is_adopted: true, ..Self::default() };
        let mut slots: BTreeMap<Slot, Address> = tables.slots.iter().map(|(slot, to)| (*slot, *to)).collect();
        let frontends: BTreeMap<Address, Record> =
            tables.frontends.iter().map(|(at, to)| (*at, *to)).collect();
        for (address, record) in frontends {
            state.records.insert(address, record);
            if state.pools.contains_key(&record.id) {
                continue;
            }
            let Record { id, generation, endpoints, .. } = record;
            let place = |index| Slot { id, generation, index };
            let whole: Option<Vec<Address>> =
                (0..endpoints).map(|index| slots.get(&place(index)).copied()).collect();
            // Slots that are not all there have been written by nobody of ours.
            let Some(whole) = whole else { continue };
            for index in (0..).take(whole.len()) {
                slots.remove(&place(index));
            }
            state.endpoints += whole.len();
            let pool = Pool { generation, endpoints: whole, ..Pool::default() };
            state.pools.insert(id, pool);
        }
        let ids = tables.frontends.values().map(|record| record.id);
        let ids = ids.chain(tables.slots.keys().map(|slot| slot.id));
        state.last_id = ids.chain(tables.members.iter().map(|member| member.id)).max().unwrap_or_default();
        state.garbage = slots.into_keys().map(Write::DeleteSlot).collect();
        for member in &tables.members {
            if let Some(pool) = state.pools.get_mut(&member.id) {
                pool.members.insert(member.endpoint);
            } else {
                state.garbage.push(Write::DeleteMember(*member));
            }
        }
        state
    }

    /// What the maps hold once all plans so far are carried out.
    pub(super) fn tables(&self) -> Tables {
        let mut tables = Tables { frontends: self.records.clone(), ..Tables::default() };
        for (id, pool) in &self.pools {
            for (index, endpoint) in (0..).zip(&pool.endpoints) {
                tables.slots.insert(Slot { id: *id, generation: pool.generation, index }, *endpoint);
            }
            tables
                .members
                .extend(pool.members.iter().map(|endpoint| Member { id: *id, endpoint: *endpoint }));
        }
        tables
    }

    /// What leads to these changes. From now on they count as done.
    pub(super) fn plan(&mut self, changes: Vec<Change>) -> Plan {
        let mut plan = Plan::default();
        let mut former: HashMap<PortName, Vec<Claim>> = HashMap::new();
        let mut released: BTreeSet<Address> = BTreeSet::new();
        for change in &changes {
            let Some(claims) = self.claims.remove(&change.name) else { continue };
            for address in claims.iter().flat_map(|claim| &claim.addresses) {
                self.owners.remove(address);
                released.insert(*address);
            }
            former.insert(change.name.clone(), claims);
        }

        let mut left: Vec<u32> = Vec::new();
        let (mut serve, mut after) = (Vec::new(), Vec::new());
        for Change { name, demands } in changes {
            let mut before = former.remove(&name).unwrap_or_default();
            let mut claims = Vec::with_capacity(demands.len());
            for demand in demands {
                let old = before.iter().position(|claim| claim.policy == demand.policy);
                let old = old.map(|position| before.swap_remove(position).id);
                match self.serve(&name, &demand, old, &mut serve) {
                    Some((claim, follows)) => {
                        claims.push(claim);
                        after.extend(follows);
                    }
                    None => {
                        plan.unserved += 1;
                        left.extend(old);
                    }
                }
            }
            left.extend(before.into_iter().map(|claim| claim.id));
            if !claims.is_empty() {
                self.claims.insert(name, claims);
            }
        }

        if std::mem::take(&mut self.is_adopted) {
            released.extend(self.records.keys());
            left.extend(self.pools.iter().filter(|(_, pool)| !pool.is_claimed).map(|(id, _)| *id));
        }
        for address in released {
            if !self.owners.contains_key(&address) && self.records.remove(&address).is_some() {
                plan.writes.push(Write::DeleteFrontend(address));
            }
        }
        plan.writes.append(&mut serve);
        // Only now does no record name the old slots.
        plan.writes.append(&mut after);
        for id in left {
            self.remove_pool(id, &mut plan.writes);
        }
        let garbage = std::mem::take(&mut self.garbage);
        plan.writes.extend(garbage.into_iter().filter(|write| !self.is_in_use(write)));
        plan
    }

    /// Whether what this write deletes has become of use again.
    fn is_in_use(&self, write: &Write) -> bool {
        match write {
            Write::DeleteSlot(slot) => self.pools.get(&slot.id).is_some_and(|pool| {
                let index = usize::try_from(slot.index).unwrap_or(usize::MAX);
                slot.generation == pool.generation && index < pool.endpoints.len()
            }),
            Write::DeleteMember(member) => {
                self.pools.get(&member.id).is_some_and(|pool| pool.members.contains(&member.endpoint))
            }
            _ => false,
        }
    }

    /// Serve a demand, in the pool `old` if it had that one before; returns what is to be removed once no record needs it any
    /// more. `None` if it cannot be served.
    fn serve(
        &mut self,
        name: &PortName,
        demand: &Demand,
        old: Option<u32>,
        writes: &mut Vec<Write>,
    ) -> Option<(Claim, Vec<Write>)> {
        let is_free = |address: &&Address| !self.owners.contains_key(*address);
        let addresses: Vec<Address> = demand.addresses.iter().filter(is_free).copied().collect();
        let before = old.and_then(|id| self.pools.get(&id)).map_or(0, |pool| pool.endpoints.len());
        let new_frontends = addresses.iter().filter(|address| !self.records.contains_key(address)).count();
        let is_room = self.records.len() + new_frontends <= MAX_FRONTENDS
            && self.endpoints - before + demand.endpoints.len() <= MAX_ENDPOINTS;
        if addresses.is_empty() || !is_room {
            return None;
        }

        let id = old.or_else(|| self.adoptable(&addresses)).unwrap_or_else(|| self.next_id());
        let pool = self.pools.entry(id).or_default();
        pool.is_claimed = true;
        self.endpoints -= pool.endpoints.len();
        let after = pool.change(id, demand, writes);
        self.endpoints += pool.endpoints.len();

        let endpoints = u32::try_from(pool.endpoints.len()).unwrap_or(u32::MAX);
        let affinity_seconds = demand.affinity_seconds;
        let record = Record { id, generation: pool.generation, endpoints, affinity_seconds };
        for address in &addresses {
            self.owners.insert(*address, name.clone());
            if self.records.insert(*address, record) != Some(record) {
                writes.push(Write::PutFrontend(*address, record));
            }
        }
        Some((Claim { policy: demand.policy, id, addresses }, after))
    }

    /// A pool that served one of these addresses in a former run, and serves nobody yet in this one.
    fn adoptable(&self, addresses: &[Address]) -> Option<u32> {
        let mut ids =
            addresses.iter().filter_map(|address| self.records.get(address)).map(|record| record.id);
        ids.find(|id| self.pools.get(id).is_some_and(|pool| !pool.is_claimed))
    }

    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.pools.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn remove_pool(&mut self, id: u32, writes: &mut Vec<Write>) {
        let Some(pool) = self.pools.remove(&id) else { return };
        self.endpoints -= pool.endpoints.len();
        let generation = pool.generation;
        let slots = (0..).zip(&pool.endpoints).map(|(index, _)| Slot { id, generation, index });
        writes.extend(slots.map(Write::DeleteSlot));
        writes.extend(
            pool.members.iter().map(|endpoint| Write::DeleteMember(Member { id, endpoint: *endpoint })),
        );
    }
}

impl Pool {
    /// Make the endpoints those of the demand. Writes what must stand before the records, and returns what follows them.
    fn change(&mut self, id: u32, demand: &Demand, writes: &mut Vec<Write>) -> Vec<Write> {
        let mut after = Vec::new();
        let wanted: BTreeSet<Address> = demand.endpoints.iter().copied().collect();
        let members = if demand.wants_members() { wanted.clone() } else { BTreeSet::new() };
        let member = |endpoint: &Address| Member { id, endpoint: *endpoint };
        writes.extend(members.difference(&self.members).map(|endpoint| Write::PutMember(member(endpoint))));
        let gone = self.members.difference(&members);
        let forget: Vec<Write> = gone.map(|endpoint| Write::DeleteMember(member(endpoint))).collect();
        self.members = members;

        let in_force: BTreeSet<Address> = self.endpoints.iter().copied().collect();
        let added: Vec<Address> = wanted.difference(&in_force).copied().collect();
        let removed: Vec<usize> =
            (0..self.endpoints.len()).filter(|index| !wanted.contains(&self.endpoints[*index])).collect();
        let is_whole = in_force.len() == self.endpoints.len();
        let place = |generation: u32, index: usize| Slot {
            id,
            generation,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        };
        match (added.as_slice(), removed.as_slice()) {
            ([], []) if is_whole => {}
            // One step of a rollout: it is one write that takes an endpoint's place or fills one, so that it is atomic as well.
            ([new], [old]) if is_whole => {
                writes.push(Write::PutSlot(place(self.generation, *old), *new));
                self.endpoints[*old] = *new;
            }
            ([new], []) if is_whole && !self.endpoints.is_empty() => {
                writes.push(Write::PutSlot(place(self.generation, self.endpoints.len()), *new));
                self.endpoints.push(*new);
            }
            ([], [old]) if is_whole && self.endpoints.len() > 1 => {
                self.endpoints.swap_remove(*old);
                if let Some(moved) = self.endpoints.get(*old) {
                    writes.push(Write::PutSlot(place(self.generation, *old), *moved));
                }
                after.push(Write::DeleteSlot(place(self.generation, self.endpoints.len())));
            }
            _ => {
                after.extend(
                    (0..self.endpoints.len()).map(|index| Write::DeleteSlot(place(self.generation, index))),
                );
                self.generation = self.generation.wrapping_add(1);
                self.endpoints = wanted.into_iter().collect();
                let slots = self.endpoints.iter().enumerate();
                writes.extend(slots.map(|(index, to)| Write::PutSlot(place(self.generation, index), *to)));
            }
        }
        after.extend(forget);
        after
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::rules::{Family, Protocol};

    fn name(number: usize, protocol: Protocol) -> PortName {
        let service: Arc<str> = format!("s{number}").into();
        PortName { namespace: "d".into(), service, port: "".into(), protocol, family: Family::V4 }
    }

    fn tcp(socket: &str) -> Address {
        Address { protocol: Protocol::Tcp, socket: socket.parse().unwrap() }
    }

    fn demand(addresses: &[&str], endpoints: &[&str], affinity_seconds: u32) -> Demand {
        Demand {
            policy: TrafficPolicy::Cluster,
            endpoints: endpoints.iter().map(|socket| tcp(socket)).collect(),
            addresses: addresses.iter().map(|socket| tcp(socket)).collect(),
            affinity_seconds,
        }
    }

    fn change(number: usize, demands: Vec<Demand>) -> Change {
        Change { name: name(number, Protocol::Tcp), demands }
    }

    impl Tables {
        fn carry_out(&mut self, write: Write) {
            match write {
                Write::PutFrontend(address, record) => drop(self.frontends.insert(address, record)),
                Write::DeleteFrontend(address) => {
                    assert!(self.frontends.remove(&address).is_some(), "{write:?}")
                }
                Write::PutSlot(slot, endpoint) => drop(self.slots.insert(slot, endpoint)),
                Write::DeleteSlot(slot) => assert!(self.slots.remove(&slot).is_some(), "{write:?}"),
                Write::PutMember(member) => drop(self.members.insert(member)),
                Write::DeleteMember(member) => assert!(self.members.remove(&member), "{write:?}"),
            }
        }

        /// What a connection may reach at each address.
        fn reachable(&self) -> BTreeMap<Address, BTreeSet<Address>> {
            let of = |record: &Record| {
                let Record { id, generation, endpoints, .. } = *record;
                let slots = (0..endpoints).map(|index| Slot { id, generation, index });
                slots.map(|slot| *self.slots.get(&slot).expect("a slot of a record is missing")).collect()
            };
            self.frontends.iter().map(|(address, record)| (*address, of(record))).collect()
        }
    }

    fn writes(state: &mut State, changes: Vec<Change>) -> Vec<Write> {
        let plan = state.plan(changes);
        assert_eq!(plan.unserved, 0);
        plan.writes
    }

    #[test]
    fn one_endpoint_more_less_or_another_costs_a_few_writes() {
        let endpoints: Vec<String> = (1..=200).map(|host| format!("10.64.0.{host}:80")).collect();
        let all: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let mut state = State::default();
        let first = writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &all[..100], 0)])]);
        assert_eq!(first.len(), 101);
        let more = writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &all[..101], 0)])]);
        assert_eq!(more.len(), 2, "{more:?}");
        let less = writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &all[1..101], 0)])]);
        assert_eq!(less.len(), 3, "{less:?}");
        let another = writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &all[2..102], 0)])]);
        assert_eq!(another.len(), 1, "{another:?}");
        let none = writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &all[2..102], 0)])]);
        assert_eq!(none, []);
    }

    #[test]
    fn a_service_without_endpoints_has_a_record_that_refuses_and_a_service_that_is_gone_has_none() {
        let mut state = State::default();
        let refused = writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &[], 0)])]);
        assert!(
            matches!(refused[..], [Write::PutFrontend(at, Record { endpoints: 0, .. })] if at == tcp("10.96.0.1:80"))
        );
        let gone = writes(&mut state, vec![change(1, Vec::new())]);
        assert_eq!(gone, [Write::DeleteFrontend(tcp("10.96.0.1:80"))]);
        assert_eq!(state.tables(), Tables::default());
    }

    #[test]
    fn an_address_passes_from_one_service_to_another_in_one_write() {
        let mut state = State::default();
        let mut tables = Tables::default();
        for write in
            writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &["10.64.0.1:80"], 0)])])
        {
            tables.carry_out(write);
        }
        let pass =
            vec![change(0, vec![demand(&["10.96.0.1:80"], &["10.64.0.2:80"], 0)]), change(1, Vec::new())];
        for write in writes(&mut state, pass) {
            tables.carry_out(write);
            assert_eq!(tables.reachable().len(), 1);
        }
        assert_eq!(tables.reachable()[&tcp("10.96.0.1:80")], BTreeSet::from([tcp("10.64.0.2:80")]));
        assert_eq!(tables, state.tables());
    }

    #[test]
    fn an_address_that_another_service_has_is_not_taken_from_it() {
        let mut state = State::default();
        writes(&mut state, vec![change(1, vec![demand(&["10.96.0.1:80"], &["10.64.0.1:80"], 0)])]);
        let plan = state.plan(vec![change(2, vec![demand(&["10.96.0.1:80"], &["10.64.0.2:80"], 0)])]);
        assert_eq!(plan, Plan { writes: Vec::new(), unserved: 1 });
    }

    #[test]
    fn more_endpoints_than_there_is_room_for_are_left_out_and_reported() {
        let endpoints = (1..=MAX_ENDPOINTS + 1).map(|host| {
            let ip = std::net::Ipv6Addr::from_bits(0xfd00 << 112 | u128::try_from(host).unwrap());
            Address { protocol: Protocol::Tcp, socket: (ip, 80).into() }
        });
        let mut state = State::default();
        let huge = Demand { endpoints: endpoints.collect(), ..demand(&["10.96.0.1:80"], &[], 0) };
        let plan = state.plan(vec![change(1, vec![demand(&["10.96.0.1:80"], &["10.64.0.1:80"], 0)])]);
        assert_eq!(plan.unserved, 0);
        let plan = state.plan(vec![change(1, vec![huge])]);
        assert_eq!(plan.unserved, 1);
        assert_eq!(state.tables(), Tables::default());
    }

    /// A cluster that changes at random.
    struct World {
        random: StdRng,
        demands: BTreeMap<usize, Vec<Demand>>,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self { random: StdRng::seed_from_u64(seed), demands: BTreeMap::new() }
        }

        fn endpoints(&mut self, protocol: Protocol) -> Vec<Address> {
            let all = (1..=6).map(|host| Address { protocol, socket: ([10, 64, 0, host], 80).into() });
            all.filter(|_| self.random.random_bool(0.6)).collect()
        }

        fn demand(&mut self, number: usize, policy: TrafficPolicy) -> Demand {
            let protocol = if number == 2 { Protocol::Udp } else { Protocol::Tcp };
            let host = u8::try_from(number).unwrap() + if policy == TrafficPolicy::Local { 100 } else { 0 };
            let all: Vec<Address> =
                (1..=2).map(|port| Address { protocol, socket: ([10, 96, 0, host], port).into() }).collect();
            let addresses = all[..self.random.random_range(1..=2)].to_vec();
            let affinity_seconds = if self.random.random_bool(0.3) { 60 } else { 0 };
            Demand { policy, endpoints: self.endpoints(protocol), addresses, affinity_seconds }
        }

        fn step(&mut self) -> Vec<Change> {
            let numbers: Vec<usize> = (0..4).filter(|_| self.random.random_bool(0.5)).collect();
            for number in &numbers {
                let mut demands = Vec::new();
                for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
                    if self.random.random_bool(0.7) {
                        demands.push(self.demand(*number, policy));
                    }
                }
                self.demands.insert(*number, demands);
            }
            numbers.into_iter().map(|number| self.change(number)).collect()
        }

        fn change(&self, number: usize) -> Change {
            let protocol = if number == 2 { Protocol::Udp } else { Protocol::Tcp };
            Change { name: name(number, protocol), demands: self.demands[&number].clone() }
        }

        fn all(&self) -> Vec<Change> {
            self.demands.keys().map(|number| self.change(*number)).collect()
        }

        fn wanted(&self) -> BTreeMap<Address, BTreeSet<Address>> {
            let demands = self.demands.values().flatten();
            let pairs = demands.flat_map(|demand| {
                let endpoints: BTreeSet<Address> = demand.endpoints.iter().copied().collect();
                demand.addresses.iter().map(move |address| (*address, endpoints.clone()))
            });
            pairs.collect()
        }
    }

    #[test]
    fn at_every_write_a_connection_reaches_what_was_or_what_will_be() {
        for seed in 0..40 {
            let mut world = World::new(seed);
            let (mut state, mut tables) = (State::default(), Tables::default());
            for _ in 0..20 {
                let before = world.wanted();
                let changes = world.step();
                let after = world.wanted();
                for write in writes(&mut state, changes) {
                    tables.carry_out(write);
                    for (address, reachable) in tables.reachable() {
                        let (old, new) = (before.get(&address), after.get(&address));
                        let allowed: BTreeSet<Address> =
                            old.into_iter().chain(new).flatten().copied().collect();
                        assert!(reachable.is_subset(&allowed), "{seed}: {address} reaches {reachable:?}");
                        // Nobody is refused who would have been served before and will be.
                        let is_served =
                            |endpoints: Option<&BTreeSet<Address>>| endpoints.is_some_and(|e| !e.is_empty());
                        assert!(
                            !(is_served(old) && is_served(new) && reachable.is_empty()),
                            "{seed}: {address}"
                        );
                    }
                    for (address, new) in &after {
                        assert!(
                            !before.contains_key(address) || tables.frontends.contains_key(address),
                            "{seed}: {new:?}"
                        );
                    }
                }
                assert_eq!(tables.reachable(), after, "{seed}");
                assert_eq!(tables, state.tables(), "{seed}");
            }
        }
    }

    #[test]
    fn whatever_a_former_run_left_half_done_is_completed_and_nothing_is_left_over() {
        for seed in 0..60 {
            let mut world = World::new(seed);
            let (mut state, mut tables) = (State::default(), Tables::default());
            for _ in 0..6 {
                let changes = world.step();
                let writes = writes(&mut state, changes);
                let done = world.random.random_range(0..=writes.len());
                writes[..done].iter().for_each(|write| tables.carry_out(*write));
                state = State::adopt(&tables);
                world.step();
                let in_force = tables.reachable();
                let wanted = world.wanted();
                for write in state.plan(world.all()).writes {
                    tables.carry_out(write);
                    for (address, reachable) in tables.reachable() {
                        let old = in_force.get(&address).into_iter().flatten();
                        let allowed: BTreeSet<Address> =
                            old.chain(wanted.get(&address).into_iter().flatten()).copied().collect();
                        assert!(reachable.is_subset(&allowed), "{seed}: {address} reaches {reachable:?}");
                    }
                }
                assert_eq!(tables.reachable(), wanted, "{seed}");
                assert_eq!(tables, state.tables(), "{seed}");
            }
        }
    }

    #[test]
    fn what_fits_is_taken_over_without_a_write() {
        let mut world = World::new(7);
        let (mut state, mut tables) = (State::default(), Tables::default());
        for _ in 0..10 {
            let changes = world.step();
            writes(&mut state, changes).into_iter().for_each(|write| tables.carry_out(write));
        }
        let mut state = State::adopt(&tables);
        assert_eq!(writes(&mut state, world.all()), []);
        assert!(!tables.frontends.is_empty());
    }

    #[test]
    fn members_are_kept_for_those_who_remember_a_choice() {
        let mut state = State::default();
        writes(
            &mut state,
            vec![change(1, vec![demand(&["10.96.0.1:80"], &["10.64.0.1:80", "10.64.0.2:80"], 0)])],
        );
        assert!(state.tables().members.is_empty());
        writes(
            &mut state,
            vec![change(1, vec![demand(&["10.96.0.1:80"], &["10.64.0.1:80", "10.64.0.3:80"], 60)])],
        );
        let members: BTreeSet<Address> =
            state.tables().members.iter().map(|member| member.endpoint).collect();
        assert_eq!(members, BTreeSet::from([tcp("10.64.0.1:80"), tcp("10.64.0.3:80")]));
    }
}

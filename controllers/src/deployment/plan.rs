//! What a Deployment needs: replica sets to create, scale and delete, its status.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use wherry_client::object_ref::controller_ref;

use super::annotations::{self, desired_replicas, revision};
use super::conditions::{self, progress_deadline};
use super::strategy::{is_rolling_update, max_surge, max_unavailable, replicas};
use super::template::{POD_TEMPLATE_HASH, is_of_template, template_hash};
use super::{scaling, size};

/// What was observed.
#[derive(Debug)]
pub(super) struct Observed<'a> {
    pub(super) deployment: &'a Deployment,
    /// The replica sets that the deployment controls.
    pub(super) replica_sets: Vec<ReplicaSet>,
    /// The uids of the replica sets that have pods which have not ended, one for each such pod. Only needed to recreate.
    pub(super) running_pods_of: Vec<String>,
    pub(super) now: Timestamp,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// The replica set of the present template, to be made.
    pub(super) create: Option<ReplicaSet>,
    /// Replica sets to be written, with other sizes or annotations.
    pub(super) update: Vec<Update>,
    /// Replica sets beyond the revision history limit.
    pub(super) delete: Vec<ReplicaSet>,
    pub(super) status: DeploymentStatus,
    /// The deployment's revision annotation, if it is to be changed.
    pub(super) revision: Option<String>,
    /// When time alone may change the plan.
    pub(super) again_after: Option<Duration>,
}

/// A replica set to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Update {
    pub(super) replica_set: ReplicaSet,
    /// Its size before, if that changes.
    pub(super) scaled_from: Option<i32>,
}

/// Plans for a deployment whose selector is not empty.
pub(super) fn plan(observed: Observed<'_>) -> Plan {
    let deployment = observed.deployment;
    let spec = deployment.spec.clone().unwrap_or_default();
    let mut rollout = Rollout::new(observed);
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.sync_revision(Creation::Never);
        return rollout.finish_with_counts();
    }
    let is_paused = spec.paused == Some(true);
    rollout.note_pause(is_paused);
    if is_paused || rollout.was_resized() {
        rollout.sync_revision(Creation::Never);
        rollout.scale();
        if is_paused {
            rollout.clean_up();
        }
        return rollout.finish_with_counts();
    }
    if is_rolling_update(deployment) {
        rollout.roll();
    } else {
        rollout.recreate();
    }
    rollout.finish()
}

/// The status after the new replica set could not be made.
pub(super) fn status_of_failed_creation(
    deployment: &Deployment,
    message: String,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    if progress_deadline(deployment).is_some() {
        conditions::set(
            &mut status,
            conditions::new("Progressing", "False", "ReplicaSetCreateError", message, now),
        );
    }
    status
}

/// Whether the replica set of the present template is made if it is missing.
#[derive(Clone, Copy, PartialEq)]
enum Creation {
    IfMissing,
    Never,
}

/// A plan in the making: working copies, and which of them were touched.
pub(super) struct Rollout<'a> {
    pub(super) deployment: &'a Deployment,
    /// All replica sets, oldest first; the newly made one is last.
    pub(super) sets: Vec<Tracked>,
    /// Which of `sets` is of the present template.
    pub(super) newest: Option<usize>,
    running_pods_of: Vec<String>,
    status: DeploymentStatus,
    revision: Option<String>,
    delete: Vec<ReplicaSet>,
    now: Timestamp,
}

/// A replica set and what happens to it.
pub(super) struct Tracked {
    pub(super) set: ReplicaSet,
    original_size: i32,
    is_changed: bool,
    is_created: bool,
}

impl<'a> Rollout<'a> {
    fn new(observed: Observed<'a>) -> Self {
        let mut sets = observed.replica_sets;
        sets.sort_by(|a, b| {
            let order =
                |set: &ReplicaSet| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone());
            order(a).cmp(&order(b))
        });
        let newest = sets.iter().position(|set| is_of_template(observed.deployment, set));
        let track = |set| Tracked { original_size: size(&set), set, is_changed: false, is_created: false };
        Self {
            deployment: observed.deployment,
            sets: sets.into_iter().map(track).collect(),
            newest,
            running_pods_of: observed.running_pods_of,
            status: observed.deployment.status.clone().unwrap_or_default(),
            revision: None,
            delete: Vec::new(),
            now: observed.now,
        }
    }

    /// The sets that are not of the present template.
    pub(super) fn old(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.sets.len()).filter(|index| Some(*index) != self.newest)
    }

    /// The sum of a number over all sets.
    pub(super) fn sum(&self, of: impl Fn(&ReplicaSet) -> i32) -> i32 {
        self.sets.iter().map(|tracked| of(&tracked.set)).sum()
    }

    /// Gives a set a size, and notes the deployment's; whether the size changes.
    pub(super) fn resize(&mut self, index: usize, new_size: i32) -> bool {
        let tracked = &mut self.sets[index];
        let resized = size(&tracked.set) != new_size;
        let annotated = annotations::set_replicas(self.deployment, &mut tracked.set);
        if resized && let Some(spec) = &mut tracked.set.spec {
            spec.replicas = Some(new_size);
        }
        tracked.is_changed |= resized || annotated;
        resized
    }

    /// Notes in the conditions that the deployment was paused or resumed: time stands still for the progress deadline.
    fn note_pause(&mut self, is_paused: bool) {
        if progress_deadline(self.deployment).is_none() {
            return;
        }
        let reason =
            conditions::get(&self.status, "Progressing").and_then(|condition| condition.reason.as_deref());
        let (reason, message) = match (reason, is_paused) {
            (Some(conditions::PROGRESS_DEADLINE_EXCEEDED), _) => return,
            (reason, true) if reason != Some(conditions::PAUSED) => {
                (conditions::PAUSED, "Deployment is paused")
            }
            (Some(conditions::PAUSED), false) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return,
        };
        let condition = conditions::new("Progressing", "Unknown", reason, message.to_owned(), self.now);
        conditions::set(&mut self.status, condition);
    }

    /// Whether the deployment's size has changed since the replica sets were last scaled.
    fn was_resized(&self) -> bool {
        let desired = replicas(self.deployment);
        self.sets
            .iter()
            .filter(|tracked| size(&tracked.set) > 0)
            .filter_map(|tracked| desired_replicas(&tracked.set))
            .any(|noted| noted != desired)
    }

    /// Brings the replica set of the present template up to date, or makes it.
    fn sync_revision(&mut self, creation: Creation) {
        let latest_old = self.old().map(|index| revision(&self.sets[index].set)).max().unwrap_or_default();
        let new_revision = latest_old.saturating_add(1);
        let min_ready_seconds = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let (index, reason, verb) = match self.newest {
            Some(index) => {
                let tracked = &mut self.sets[index];
                tracked.is_changed |=
                    annotations::set_for_newest(self.deployment, &mut tracked.set, new_revision);
                if let Some(spec) = &mut tracked.set.spec
                    && spec.min_ready_seconds.unwrap_or_default() != min_ready_seconds.unwrap_or_default()
                {
                    spec.min_ready_seconds = min_ready_seconds;
                    tracked.is_changed = true;
                }
                (index, "FoundNewReplicaSet", "Found")
            }
            None if creation == Creation::IfMissing => {
                let mut set = new_replica_set(self.deployment);
                let first_size = self.first_size();
                if let Some(spec) = &mut set.spec {
                    spec.replicas = Some(first_size);
                }
                annotations::set_for_newest(self.deployment, &mut set, new_revision);
                annotations::set_replicas(self.deployment, &mut set);
                self.sets.push(Tracked {
                    set,
                    original_size: first_size,
                    is_changed: false,
                    is_created: true,
                });
                self.newest = Some(self.sets.len() - 1);
                (self.sets.len() - 1, "NewReplicaSetCreated", "Created")
            }
            None => return,
        };
        let set = &self.sets[index].set;
        let set_revision =
            set.metadata.annotations.as_ref().and_then(|all| all.get(annotations::REVISION)).cloned();
        let own =
            self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(annotations::REVISION));
        self.revision = set_revision.filter(|set_revision| own != Some(set_revision));
        let is_known = conditions::get(&self.status, "Progressing").is_some() && verb == "Found";
        if progress_deadline(self.deployment).is_some() && !is_known {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let message = match verb {
                "Found" => format!("Found new replica set \"{name}\""),
                _ => format!("Created new replica set \"{name}\""),
            };
            conditions::set(
                &mut self.status,
                conditions::new("Progressing", "True", reason, message, self.now),
            );
        }
    }

    /// The size that the new replica set begins with.
    fn first_size(&self) -> i32 {
        if !is_rolling_update(self.deployment) {
            return replicas(self.deployment);
        }
        self.rolled_up_size(0)
    }

    /// How large a new replica set that now has `current` pods may become without going beyond the surge.
    pub(super) fn rolled_up_size(&self, current: i32) -> i32 {
        let wanted = replicas(self.deployment);
        let room = wanted.saturating_add(max_surge(self.deployment)) - self.sum(size);
        if room <= 0 { current } else { current + room.min(wanted - current) }
    }

    /// One step of a rolling update: up if there is room, otherwise down if enough are available.
    fn roll(&mut self) {
        self.sync_revision(Creation::IfMissing);
        let Some(newest) = self.newest else { return };
        if self.sets[newest].is_created || self.scale_newest(newest) || self.scale_down_old(newest) {
            return;
        }
        self.clean_up_when_complete();
    }

    fn scale_newest(&mut self, newest: usize) -> bool {
        let (wanted, current) = (replicas(self.deployment), size(&self.sets[newest].set));
        let new_size = match current.cmp(&wanted) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => wanted,
            std::cmp::Ordering::Less => self.rolled_up_size(current),
        };
        self.resize(newest, new_size)
    }

    fn scale_down_old(&mut self, newest: usize) -> bool {
        let old_pods: i32 = self.old().map(|index| size(&self.sets[index].set)).sum();
        if old_pods == 0 {
            return false;
        }
        let min_available = replicas(self.deployment) - max_unavailable(self.deployment);
        let newest_set = &self.sets[newest].set;
        let newest_unavailable = size(newest_set) - available(newest_set);
        let room = self.sum(size) - min_available - newest_unavailable;
        if room <= 0 {
            return false;
        }
        // Those that are not available go first: they do no good.
        let unhealthy = self.shrink_old(room, |set| (size(set) - available(set)).max(0));
        let surplus_available = self.sum(available) - min_available;
        let healthy = if surplus_available > 0 { self.shrink_old(surplus_available, size) } else { 0 };
        unhealthy + healthy > 0
    }

    /// Takes up to `most` pods from the old sets, the oldest first, from each not more than `of_one`; how many it took.
    fn shrink_old(&mut self, most: i32, of_one: impl Fn(&ReplicaSet) -> i32) -> i32 {
        let mut taken = 0;
        for index in self.old().collect::<Vec<_>>() {
            let current = size(&self.sets[index].set);
            let take = of_one(&self.sets[index].set).min(most - taken);
            if take > 0 {
                self.resize(index, current - take);
                taken += take;
            }
        }
        taken
    }

    /// Down with the old, wait until their pods are gone, then up with the new.
    fn recreate(&mut self) {
        self.sync_revision(Creation::Never);
        let active_old: Vec<_> = self.old().filter(|index| size(&self.sets[*index].set) > 0).collect();
        if !active_old.is_empty() {
            for index in active_old {
                self.resize(index, 0);
            }
            return;
        }
        let newest_uid = self.newest.and_then(|index| self.sets[index].set.metadata.uid.clone());
        let still_counted: i32 = self.old().map(|index| counted(&self.sets[index].set)).sum();
        if still_counted > 0 || self.running_pods_of.iter().any(|uid| Some(uid) != newest_uid.as_ref()) {
            return;
        }
        if self.newest.is_none() {
            self.sync_revision(Creation::IfMissing);
        }
        if let Some(newest) = self.newest
            && !self.sets[newest].is_created
        {
            self.resize(newest, replicas(self.deployment));
        }
        self.clean_up_when_complete();
    }

    /// Spreads a new size over the sets.
    fn scale(&mut self) {
        for (index, new_size) in scaling::sizes(self) {
            self.resize(index, new_size);
        }
    }

    fn clean_up_when_complete(&mut self) {
        let status = self.counts();
        if conditions::is_complete(self.deployment, &status) {
            self.clean_up();
        }
    }

    /// Lets go of old, empty replica sets beyond the history limit, the oldest revision first.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut alive: Vec<_> =
            self.old().filter(|index| self.sets[*index].set.metadata.deletion_timestamp.is_none()).collect();
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        alive.sort_by_key(|index| revision(&self.sets[*index].set));
        for index in alive.into_iter().take(surplus) {
            let set = &self.sets[index].set;
            let is_observed =
                set.status.as_ref().and_then(|status| status.observed_generation) >= set.metadata.generation;
            if size(set) == 0 && counted(set) == 0 && is_observed {
                self.delete.push(set.clone());
            }
        }
    }

    /// The status as the replica sets' statuses add up, with the conditions so far and Available.
    fn counts(&self) -> DeploymentStatus {
        let sum_of_status = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| {
            self.sum(|set| set.status.as_ref().and_then(of).unwrap_or_default())
        };
        let available = sum_of_status(|status| status.available_replicas);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: nonzero(sum_of_status(|status| Some(status.replicas))),
            updated_replicas: nonzero(
                self.newest.map(|index| counted(&self.sets[index].set)).unwrap_or_default(),
            ),
            ready_replicas: nonzero(sum_of_status(|status| status.ready_replicas)),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero((self.sum(size) - available).max(0)),
            terminating_replicas: Some(sum_of_status(|status| status.terminating_replicas)),
            collision_count: self.status.collision_count,
            conditions: self.status.conditions.clone(),
        };
        let min_available = replicas(self.deployment) - max_unavailable(self.deployment);
        let (met, reason, message) = if available >= min_available {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        conditions::set(&mut status, conditions::new("Available", met, reason, message.to_owned(), self.now));
        status
    }

    /// The end of a plan that only counts.
    fn finish_with_counts(self) -> Plan {
        let status = self.counts();
        self.into_plan(status, None)
    }

    /// The end of a plan that also judges the progress.
    fn finish(self) -> Plan {
        let mut status = self.counts();
        self.judge_progress(&mut status);
        let sets: Vec<_> = self.sets.iter().map(|tracked| tracked.set.clone()).collect();
        match conditions::replica_failure(&sets, self.newest.map(|index| &sets[index])) {
            Some(condition) => conditions::set(&mut status, condition),
            None => conditions::remove(&mut status, "ReplicaFailure"),
        }
        let again_after = self.deadline_check(&status);
        self.into_plan(status, again_after)
    }

    fn judge_progress(&self, status: &mut DeploymentStatus) {
        if progress_deadline(self.deployment).is_none() {
            conditions::remove(status, "Progressing");
            return;
        }
        let before = self.deployment.status.clone().unwrap_or_default();
        let current = conditions::get(&self.status, "Progressing").cloned();
        let was_complete = status.replicas == status.updated_replicas
            && current
                .as_ref()
                .is_some_and(|c| c.reason.as_deref() == Some(conditions::NEW_REPLICA_SET_AVAILABLE));
        if was_complete {
            return;
        }
        let subject = match self.newest.map(|index| &self.sets[index].set.metadata.name) {
            Some(name) => format!("ReplicaSet \"{}\"", name.as_deref().unwrap_or_default()),
            None => {
                format!("Deployment \"{}\"", self.deployment.metadata.name.as_deref().unwrap_or_default())
            }
        };
        if conditions::is_complete(self.deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            let reason = conditions::NEW_REPLICA_SET_AVAILABLE;
            conditions::set(status, conditions::new("Progressing", "True", reason, message, self.now));
        } else if conditions::is_progressing(&before, status) {
            let message = format!("{subject} is progressing.");
            let mut condition =
                conditions::new("Progressing", "True", "ReplicaSetUpdated", message, self.now);
            // The update time moves with every bit of progress: the deadline counts from it.
            if let Some(current) = current {
                if current.status == "True" {
                    condition.last_transition_time = current.last_transition_time;
                }
                conditions::remove(status, "Progressing");
            }
            conditions::set(status, condition);
        } else if conditions::is_timed_out(self.deployment, status, self.now) {
            let message = format!("{subject} has timed out progressing.");
            let reason = conditions::PROGRESS_DEADLINE_EXCEEDED;
            conditions::set(status, conditions::new("Progressing", "False", reason, message, self.now));
        }
    }

    /// When the progress deadline has to be looked at, if nothing else happens.
    fn deadline_check(&self, status: &DeploymentStatus) -> Option<Duration> {
        let deadline = progress_deadline(self.deployment)?;
        let progressing = conditions::get(status, "Progressing")?;
        // What was complete once does not time out.
        let settled = [conditions::PROGRESS_DEADLINE_EXCEEDED, conditions::NEW_REPLICA_SET_AVAILABLE];
        if conditions::is_complete(self.deployment, status)
            || progressing.reason.as_deref().is_some_and(|reason| settled.contains(&reason))
        {
            return None;
        }
        let Time(since) = progressing.last_update_time.as_ref()?;
        let left = deadline - self.now.duration_since(*since) + SignedDuration::from_secs(1);
        Some(Duration::try_from(left).unwrap_or_default().max(Duration::from_secs(1)))
    }

    fn into_plan(self, status: DeploymentStatus, again_after: Option<Duration>) -> Plan {
        let mut plan = Plan {
            create: None,
            update: Vec::new(),
            delete: self.delete,
            status,
            revision: self.revision,
            again_after,
        };
        for tracked in self.sets {
            if tracked.is_created {
                plan.create = Some(tracked.set);
            } else if tracked.is_changed {
                let scaled_from =
                    (size(&tracked.set) != tracked.original_size).then_some(tracked.original_size);
                plan.update.push(Update { replica_set: tracked.set, scaled_from });
            }
        }
        plan
    }
}

/// A replica set of the present template, without a size yet.
fn new_replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collision_count = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collision_count);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// How many pods of the set are available.
fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

/// How many pods the set was last seen to have.
fn counted(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map(|status| status.replicas).unwrap_or_default()
}

/// Zero is left out, as the API leaves it out.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

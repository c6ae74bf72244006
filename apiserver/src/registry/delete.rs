//! DELETE and deletecollection: grace periods, finalizers, preconditions.
//!
//! Source: `Store.Delete` in `k8s.io/apiserver/pkg/registry/generic/registry` and `rest.BeforeDelete`.

use serde_json::{Value, json};
use wherry_machinery::status::{Reason, Status, StatusDetails};
use wherry_storage::{Change, Expected, KeyValue, Outcome};

use super::context::Context;
use super::strategy::Deletion;
use super::{Kind, Refusal, Registry, object, store_failed};
use crate::admission::{Attributes, Operation};

/// The finalizer of foreground deletion.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of orphaning deletion.
const ORPHAN: &str = "orphan";
/// How often a deletion that met another write is tried again.
const MAX_TRIES: usize = 16;

/// What must hold for a deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resource version.
    pub resource_version: Option<String>,
}

/// `meta/v1.DeleteOptions`, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds to wait for whoever runs the object.
    pub grace_period_seconds: Option<u64>,
    /// What must hold.
    pub preconditions: Preconditions,
    /// The old way to say [`Propagation::Orphan`].
    pub orphan_dependents: Option<bool>,
    /// What becomes of dependents.
    pub propagation: Option<Propagation>,
}

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted first.
    Foreground,
    /// They are deleted afterwards.
    Background,
    /// They stay.
    Orphan,
}

/// The outcome of a deletion.
#[derive(Debug)]
pub struct Deleted {
    /// The object's last state.
    pub object: Value,
    /// Whether it is gone already.
    pub gone: bool,
}

/// What one look at an object leads to.
#[derive(Debug, PartialEq)]
enum Step {
    /// Store this state: deletion has begun.
    Mark(Value),
    /// Remove the object; this is its last state.
    Remove(Value),
    /// Deletion has begun already and nothing changes.
    Pending,
}

impl Registry {
    /// Deletes an object, or begins to.
    ///
    /// # Errors
    /// The `Status` to answer.
    ///
    /// # Cancellation
    /// A dropped call may still delete the object.
    pub async fn delete(
        &self,
        kind: &Kind,
        context: &Context,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Refusal> {
        let key = kind.key(namespace, name)?;
        let mut current = self.store.get(&key).await.map_err(store_failed)?;
        for attempt in 0..MAX_TRIES {
            let stored = current.ok_or_else(|| kind.not_found(name))?;
            let old = kind.decode(&stored.value, stored.mod_revision)?;
            if attempt == 0 {
                self.admit_deletion(kind, context, namespace, name, &old).await?;
            }
            check_preconditions(kind, &options.preconditions, &old)?;
            let step = decide(kind, options, &old, context.now_unix_seconds);
            match self.carry_out(kind, context, &stored, old, step).await? {
                Ok(deleted) => return Ok(deleted),
                Err(now) => current = now,
            }
        }
        Err(Status::modified(kind.resource.group, kind.resource.name, name).into())
    }

    async fn admit_deletion(
        &self,
        kind: &Kind,
        context: &Context,
        namespace: &str,
        name: &str,
        old: &Value,
    ) -> Result<(), Refusal> {
        let attributes = Attributes {
            operation: Operation::Delete,
            resource: kind.resource,
            subresource: "",
            namespace,
            name,
            context,
            old: Some(old),
        };
        let mut nothing = Value::Null;
        for plugin in self.admission() {
            plugin.admit(self, &attributes, &mut nothing).await?;
        }
        for plugin in self.admission() {
            plugin.validate(self, &attributes, &nothing).await?;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        kind: &Kind,
        context: &Context,
        stored: &KeyValue,
        old: Value,
        step: Step,
    ) -> Result<Result<Deleted, Option<KeyValue>>, Refusal> {
        let (change, mut object, gone) = match step {
            Step::Pending => return Ok(Ok(Deleted { object: old, gone: false })),
            Step::Mark(object) if object == old => return Ok(Ok(Deleted { object, gone: false })),
            Step::Mark(object) => (Change::Put(kind.encode(&object)), object, false),
            Step::Remove(object) => (Change::Delete, object, true),
        };
        if context.dry_run {
            return Ok(Ok(Deleted { object, gone }));
        }
        let expected = Expected::At(stored.mod_revision);
        match self.store.transact(&stored.key, expected, change).await.map_err(store_failed)? {
            Outcome::Conflict { current } => Ok(Err(current)),
            Outcome::Committed { revision } => {
                object::set(&mut object, "resourceVersion", revision.to_string());
                if gone && let Some(hooks) = &kind.hooks {
                    hooks.after_delete(&object);
                }
                Ok(Ok(Deleted { object, gone }))
            }
        }
    }

    /// Deletes every object among `names` (namespace and name); one that is gone by then is no error.
    ///
    /// # Errors
    /// The first refusal; what was deleted before it stays deleted.
    pub async fn delete_collection(
        &self,
        kind: &Kind,
        context: &Context,
        names: &[(String, String)],
        options: &DeleteOptions,
    ) -> Result<(), Refusal> {
        for (namespace, name) in names {
            match self.delete(kind, context, namespace, name, options).await {
                Ok(_) => {}
                Err(refusal) if refusal.reason == Reason::NotFound.as_str() => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }
}

impl Deleted {
    /// The body to answer with.
    pub fn into_answer(self, kind: &Kind) -> Result<Value, Box<Status>> {
        if !self.gone || kind.returns_deleted {
            return Ok(self.object);
        }
        Err(Box::new(Status::success(StatusDetails {
            name: object::name(&self.object).to_owned(),
            group: kind.resource.group.to_owned(),
            kind: kind.resource.name.to_owned(),
            uid: object::text(&self.object, "uid").to_owned(),
            ..StatusDetails::default()
        })))
    }
}

fn check_preconditions(kind: &Kind, preconditions: &Preconditions, old: &Value) -> Result<(), Refusal> {
    let names = kind.resource;
    let conflict =
        |cause: String| Box::new(Status::conflict(names.group, names.kind, object::name(old), cause));
    if let Some(want) = &preconditions.uid {
        let have = object::text(old, "uid");
        if want != have {
            return Err(conflict(format!(
                "the UID in the precondition ({want}) does not match the UID in record ({have}). The object might have \
                 been deleted and then recreated"
            )));
        }
    }
    if let Some(want) = &preconditions.resource_version {
        let have = object::text(old, "resourceVersion");
        if want != have {
            return Err(conflict(format!(
                "the ResourceVersion in the precondition ({want}) does not match the ResourceVersion in record ({have}). \
                 The object might have been modified"
            )));
        }
    }
    Ok(())
}

fn decide(kind: &Kind, options: &DeleteOptions, old: &Value, now: i64) -> Step {
    if kind.strategy.is_finalized_by_spec() {
        return decide_by_spec(options, old, now);
    }
    let mut object = old.clone();
    let graceful = match begin_gracefully(kind, options, &mut object, now) {
        Grace::Pending => return Step::Pending,
        Grace::Seconds(seconds) => Some(seconds),
        Grace::None => None,
    };
    object::set(&mut object, "finalizers", deletion_finalizers(options, old));
    if object::finalizers(&object).is_empty() {
        object::unset(&mut object, "finalizers");
    }
    let held = !object::finalizers(&object).is_empty();
    match graceful {
        Some(0) | None if !held => Step::Remove(object),
        Some(_) => Step::Mark(object),
        None => {
            mark_deleting(&mut object, now);
            Step::Mark(object)
        }
    }
}

enum Grace {
    Pending,
    Seconds(u64),
    None,
}

fn begin_gracefully(kind: &Kind, options: &DeleteOptions, object: &mut Value, now: i64) -> Grace {
    let requested = options.grace_period_seconds;
    let deletion = kind.strategy.deletion(object, requested);
    let Deletion::Graceful { grace_period_seconds } = deletion else { return Grace::None };
    if object::is_deleting(object) {
        // Deletion has begun: the grace period can only become shorter.
        let Some(present) = object::deletion_grace(object).filter(|seconds| *seconds != 0) else {
            return Grace::None;
        };
        let Some(requested) = requested.and_then(|seconds| i64::try_from(seconds).ok()) else {
            return Grace::Pending;
        };
        if requested >= present {
            return Grace::Pending;
        }
        let began = wherry_machinery::time::parse(object::text(object, "deletionTimestamp"))
            .map_or(now, |end| end.unix_seconds() - present);
        object::set(object, "deletionTimestamp", wherry_machinery::time::format_seconds(began + requested));
        object::set(object, "deletionGracePeriodSeconds", requested);
        return Grace::Seconds(requested.unsigned_abs());
    }
    let seconds = i64::try_from(grace_period_seconds).unwrap_or(i64::MAX);
    object::set(
        object,
        "deletionTimestamp",
        wherry_machinery::time::format_seconds(now.saturating_add(seconds)),
    );
    object::set(object, "deletionGracePeriodSeconds", seconds);
    bump_generation(object);
    Grace::Seconds(grace_period_seconds)
}

/// Deletion has begun, and only finalizers stand in the way.
fn mark_deleting(object: &mut Value, now: i64) {
    if object::deletion_grace(object).is_none() {
        bump_generation(object);
    }
    let time = wherry_machinery::time::format_seconds(now);
    let present = object::text(object, "deletionTimestamp");
    // The text form of times sorts as the times do.
    if present.is_empty() || present > time.as_str() {
        object::set(object, "deletionTimestamp", time);
    }
    object::set(object, "deletionGracePeriodSeconds", 0);
}

fn bump_generation(object: &mut Value) {
    let generation = object::generation(object);
    if generation > 0 {
        object::set(object, "generation", generation + 1);
    }
}

/// The finalizers that the garbage collector needs for the wanted propagation, beside the others.
fn deletion_finalizers(options: &DeleteOptions, old: &Value) -> Vec<String> {
    let present = object::finalizers(old);
    let has = |finalizer: &str| present.iter().any(|f| f == finalizer);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(Propagation::Orphan)) => (true, false),
        (None, Some(Propagation::Foreground)) => (false, true),
        (None, Some(Propagation::Background)) => (false, false),
        (None, None) => (has(ORPHAN), has(FOREGROUND)),
    };
    let wanted: Vec<&str> =
        orphan.then_some(ORPHAN).into_iter().chain(foreground.then_some(FOREGROUND)).collect();
    let unchanged = has(ORPHAN) == orphan && has(FOREGROUND) == foreground;
    if unchanged {
        return present;
    }
    let others = present.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned();
    others.chain(wanted.into_iter().map(str::to_owned)).collect()
}

/// A namespace is Terminating until whoever empties it has taken its name off `spec.finalizers`.
fn decide_by_spec(options: &DeleteOptions, old: &Value, now: i64) -> Step {
    let mut object = old.clone();
    if !object::is_deleting(old) {
        object::set(&mut object, "deletionTimestamp", wherry_machinery::time::format_seconds(now));
        if !object["status"].is_object() {
            object["status"] = json!({});
        }
        object["status"]["phase"] = "Terminating".into();
        let finalizers = deletion_finalizers(options, old);
        if !finalizers.is_empty() {
            object::set(&mut object, "finalizers", finalizers);
        }
    }
    let is_empty = |list: Option<&Value>| list.and_then(Value::as_array).is_none_or(Vec::is_empty);
    if is_empty(object.pointer("/spec/finalizers")) && object::finalizers(&object).is_empty() {
        Step::Remove(object)
    } else {
        Step::Mark(object)
    }
}

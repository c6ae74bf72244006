//! PUT and the write half of PATCH.

use serde_json::{Value, json};
use wherry_machinery::field::Path;
use wherry_machinery::metadata;
use wherry_machinery::status::{Reason, Status};
use wherry_storage::{Change, Expected, KeyValue, Outcome};

use super::context::Context;
use super::create::{Moment, drop_duplicate_owners, match_namespace};
use super::ownership::uid_of_nothing;
use super::strategy::Part;
use super::{Kind, Refusal, Registry, object, store_failed};
use crate::admission::{Attributes, Operation};
use crate::kinds::Act;

/// How often a change that met another one is tried again. Source: kube-apiserver's `maxRetryWhenPatchConflicts` and more.
const MAX_TRIES: usize = 16;

/// What is to be changed.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The name.
    pub name: &'a str,
    /// The part of the object that may change.
    pub part: Part,
    /// The subresource, as admission sees it.
    pub subresource: &'static str,
    /// Whether an absent object may be created (PUT on the main resource).
    pub may_create: bool,
    /// How the subresource changes the object, if not in the strategy's way.
    pub act: Option<Act>,
    /// Who comes to own what changes.
    pub ownership: Ownership,
}

/// Who comes to own the fields that a write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// Whoever writes them.
    #[default]
    Writer,
    /// As the wanted state has it in `metadata.managedFields` already: it comes from an apply.
    Given,
}

impl<'a> Target<'a> {
    /// The object itself.
    pub fn object(namespace: &'a str, name: &'a str) -> Self {
        Self {
            namespace,
            name,
            part: Part::Main,
            subresource: "",
            may_create: false,
            act: None,
            ownership: Ownership::Writer,
        }
    }
}

/// The state after a write.
#[derive(Debug)]
pub struct Updated {
    /// The object.
    pub object: Value,
    /// Whether it was created.
    pub created: bool,
}

/// From the present state to the wanted one; called again when another write came first.
pub type Transform<'a> = &'a (dyn Fn(&Value) -> Result<Value, Refusal> + Send + Sync);

impl Registry {
    /// Changes an object.
    ///
    /// # Errors
    /// The `Status` to answer.
    ///
    /// # Cancellation
    /// A dropped call may still change the object.
    pub async fn update(
        &self,
        kind: &Kind,
        context: &Context,
        target: Target<'_>,
        transform: Transform<'_>,
    ) -> Result<Updated, Refusal> {
        let names = kind.resource;
        let key = kind.key(target.namespace, target.name)?;
        let mut current = self.store.get(&key).await.map_err(store_failed)?;
        for _ in 0..MAX_TRIES {
            let Some(stored) = current else {
                return self.create_by_update(kind, context, target, transform).await;
            };
            let old = kind.decode(&stored.value, stored.mod_revision)?;
            let new = self.wanted(kind, context, target, &old, transform).await?;
            match self.commit_update(kind, context, &stored, &old, new).await? {
                Committed::Done(object) => return Ok(Updated { object, created: false }),
                Committed::Raced(now) => current = now,
            }
        }
        Err(Status::modified(names.group, names.name, target.name).into())
    }

    async fn create_by_update(
        &self,
        kind: &Kind,
        context: &Context,
        target: Target<'_>,
        transform: Transform<'_>,
    ) -> Result<Updated, Refusal> {
        if !target.may_create
            || !(kind.strategy.allows_create_on_update() || target.ownership == Ownership::Given)
        {
            return Err(kind.not_found(target.name));
        }
        let mut wanted = transform(&Value::Null)?;
        check_names(kind, target, &mut wanted)?;
        if target.ownership == Ownership::Given {
            let uid = object::text(&wanted, "uid");
            if !uid.is_empty() {
                return Err(uid_of_nothing(kind, target.name, uid));
            }
            object::unset(&mut wanted, "resourceVersion");
        } else if !object::text(&wanted, "resourceVersion").is_empty()
            || !object::text(&wanted, "uid").is_empty()
        {
            return Err(kind.not_found(target.name));
        }
        kind.strategy.default(&mut wanted);
        let object = self.create_owned(kind, context, target.namespace, wanted, target.ownership).await?;
        Ok(Updated { object, created: true })
    }

    /// The state to store, judged by everybody who has a say.
    async fn wanted(
        &self,
        kind: &Kind,
        context: &Context,
        target: Target<'_>,
        old: &Value,
        transform: Transform<'_>,
    ) -> Result<Value, Refusal> {
        let names = kind.resource;
        let facts = context.facts();
        let mut new = transform(old)?;
        check_names(kind, target, &mut new)?;
        kind.strategy.default(&mut new);
        if target.ownership == Ownership::Writer {
            self.own(kind, context, (target.part, target.subresource), Some(old), &mut new);
        }

        let attributes = Attributes {
            operation: Operation::Update,
            resource: names,
            subresource: target.subresource,
            namespace: target.namespace,
            name: target.name,
            context,
            old: Some(old),
        };
        for plugin in self.admission() {
            plugin.admit(self, &attributes, &mut new).await?;
        }
        check_version(kind, &new, old)?;
        keep_other_part(kind, target.part, &mut new, old);
        object::carry(&mut new, old, "generation");
        match target.act {
            Some(act) => (act.prepare)(&mut new, old),
            None => kind.strategy.prepare_for_update(&facts, target.part, &mut new, old),
        }
        carry_system_fields(&mut new, old);
        if kind.strategy.has_generation() && object::specification_differs(&new, old) {
            object::set(&mut new, "generation", object::generation(old) + 1);
        }
        drop_duplicate_owners(context, &mut new, Moment::Admitted);

        let path = Path::new("metadata");
        let mut errors = metadata::validate_object_meta_update(&new, old, &path);
        errors.extend(metadata::validate_object_meta(
            &new,
            kind.is_namespaced(),
            |name: &str| kind.strategy.validate_name(name),
            &path,
        ));
        // The generic layer and the kind's own validation both look at the metadata: causes name such errors twice.
        errors.extend(errors.clone());
        errors.extend(match target.act {
            Some(act) => (act.validate)(&new, old),
            None => kind.strategy.validate_update(&facts, target.part, &new, old),
        });
        if !errors.is_empty() {
            return Err(Status::invalid(names.group, names.kind, target.name, &errors).into());
        }
        for warning in kind.strategy.warnings(&new, Some(old)) {
            context.warn(warning);
        }
        for plugin in self.admission() {
            plugin.validate(self, &attributes, &new).await?;
        }
        Ok(new)
    }

    async fn commit_update(
        &self,
        kind: &Kind,
        context: &Context,
        stored: &KeyValue,
        old: &Value,
        mut new: Value,
    ) -> Result<Committed, Refusal> {
        let reservation = match &kind.hooks {
            Some(hooks) => Some(hooks.before_commit(context, &mut new, Some(old)).await?),
            None => None,
        };
        object::set(&mut new, "resourceVersion", stored.mod_revision.to_string());
        if context.dry_run {
            return Ok(Committed::Done(new));
        }
        let goes = may_go_with_update(kind, &new, old);
        if !goes && new == *old {
            return Ok(Committed::Done(new));
        }
        let change = if goes { Change::Delete } else { Change::Put(kind.encode(&new)) };
        let outcome = self
            .store
            .transact(&stored.key, Expected::At(stored.mod_revision), change)
            .await
            .map_err(store_failed)?;
        match outcome {
            Outcome::Conflict { current } => Ok(Committed::Raced(current)),
            Outcome::Committed { revision } => {
                if let Some(reservation) = reservation {
                    reservation.keep();
                }
                if goes {
                    if let Some(hooks) = &kind.hooks {
                        hooks.after_delete(&new);
                    }
                } else {
                    object::set(&mut new, "resourceVersion", revision.to_string());
                    if let Some(hooks) = &kind.hooks {
                        hooks.after_update(&new, old);
                    }
                }
                Ok(Committed::Done(new))
            }
        }
    }
}

enum Committed {
    Done(Value),
    Raced(Option<KeyValue>),
}

fn check_names(kind: &Kind, target: Target<'_>, object: &mut Value) -> Result<(), Refusal> {
    let name = object::name(object);
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            target.name
        ))
        .into());
    }
    if name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        ))
        .into());
    }
    match_namespace(object, if kind.is_namespaced() { target.namespace } else { "" })
}

/// The client's version must be the present one, if it gave one; if it gave none, the kind must allow that.
fn check_version(kind: &Kind, new: &Value, old: &Value) -> Result<(), Refusal> {
    let names = kind.resource;
    let name = object::name(old);
    let (new_uid, old_uid) = (object::text(new, "uid"), object::text(old, "uid"));
    if !new_uid.is_empty() && new_uid != old_uid {
        let cause =
            format!("Precondition failed: UID in precondition: {new_uid}, UID in object meta: {old_uid}");
        return Err(Status::conflict(names.group, names.name, name, cause).into());
    }
    let version = object::text(new, "resourceVersion");
    if version.is_empty() || version == "0" {
        if kind.strategy.allows_unconditional_update() {
            return Ok(());
        }
        let path = Path::new("metadata").child("resourceVersion");
        let mut error = wherry_machinery::field::Error::invalid(&path, "", "must be specified for an update");
        error.body = "Invalid value: 0x0: must be specified for an update".to_owned();
        return Err(Status::invalid(names.group, names.kind, name, &[error]).into());
    }
    if let Err(why) = version.parse::<u64>() {
        let why = match why.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        let quoted = wherry_machinery::field::go_quote(version);
        let message = format!("strconv.ParseUint: parsing {quoted}: {why}");
        return Err(Status::failure(Reason::Unknown, message).into());
    }
    if version == object::text(old, "resourceVersion") {
        Ok(())
    } else {
        Err(Status::modified(names.group, names.name, name).into())
    }
}

/// A write to the object leaves the status alone, a write to the status leaves the rest alone.
fn keep_other_part(kind: &Kind, part: Part, new: &mut Value, old: &Value) {
    match part {
        Part::Main => {
            if kind.strategy.has_status() {
                match old.get("status") {
                    Some(status) => new["status"] = status.clone(),
                    None => {
                        if let Some(fields) = new.as_object_mut() {
                            fields.remove("status");
                        }
                    }
                }
            }
        }
        Part::Status => {
            let mut merged = old.clone();
            merged["metadata"] = new["metadata"].take();
            merged["status"] = match new.get_mut("status") {
                Some(status) if !status.is_null() => status.take(),
                _ => json!({}),
            };
            *new = merged;
        }
    }
}

/// What a client can neither change nor remove.
fn carry_system_fields(new: &mut Value, old: &Value) {
    object::unset(new, "selfLink");
    if object::text(new, "uid").is_empty() {
        object::carry(new, old, "uid");
    }
    object::carry(new, old, "creationTimestamp");
    if object::is_deleting(old) {
        object::carry(new, old, "deletionTimestamp");
    }
    if object::deletion_grace(old).is_some() && object::deletion_grace(new).is_none() {
        object::carry(new, old, "deletionGracePeriodSeconds");
    }
    object::carry(new, old, "resourceVersion");
}

/// Whether the update takes away the last thing that kept an object from being deleted.
fn may_go_with_update(kind: &Kind, new: &Value, old: &Value) -> bool {
    let finalized = object::finalizers(new).is_empty()
        && object::is_deleting(old)
        && object::deletion_grace(old).unwrap_or_default() == 0;
    let spec_finalized = !kind.strategy.is_finalized_by_spec()
        || new.pointer("/spec/finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty);
    finalized && spec_finalized
}

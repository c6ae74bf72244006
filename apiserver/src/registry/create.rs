//! POST.

use serde_json::{Value, json};
use wherry_machinery::field::Path;
use wherry_machinery::metadata;
use wherry_machinery::status::{Reason, Status};
use wherry_storage::{Change, Expected, Outcome};

use super::context::Context;
use super::strategy::Part;
use super::update::Ownership;
use super::{Kind, Refusal, Registry, object, store_failed};
use crate::admission::{Attributes, Operation};

/// Characters appended to `generateName`. Source: `k8s.io/apiserver/pkg/storage/names`.
const SUFFIX_CHARACTERS: usize = 5;
/// The part of `generateName` that is kept, so that the name fits a label of 63 bytes.
const MAX_BASE_BYTES: usize = 63 - SUFFIX_CHARACTERS;
/// How many generated names are tried. Source: `RetryGenerateName`.
const MAX_TRIES: usize = 8;

impl Registry {
    /// Creates an object.
    ///
    /// # Errors
    /// The `Status` to answer.
    ///
    /// # Cancellation
    /// A dropped call may still create the object.
    pub async fn create(
        &self,
        kind: &Kind,
        context: &Context,
        namespace: &str,
        object: Value,
    ) -> Result<Value, Refusal> {
        self.create_owned(kind, context, namespace, object, Ownership::Writer).await
    }

    pub(super) async fn create_owned(
        &self,
        kind: &Kind,
        context: &Context,
        namespace: &str,
        object: Value,
        ownership: Ownership,
    ) -> Result<Value, Refusal> {
        let generated = object::name(&object).is_empty() && !object::text(&object, "generateName").is_empty();
        let mut tries = if generated { MAX_TRIES } else { 1 };
        loop {
            tries -= 1;
            match self.create_once(kind, context, namespace, object.clone(), ownership).await {
                Err(refusal) if tries > 0 && refusal.reason == Reason::AlreadyExists.as_str() => {}
                done => return done,
            }
        }
    }

    async fn create_once(
        &self,
        kind: &Kind,
        context: &Context,
        namespace: &str,
        mut object: Value,
        ownership: Ownership,
    ) -> Result<Value, Refusal> {
        let names = kind.resource;
        let facts = context.facts();
        match_namespace(&mut object, if kind.is_namespaced() { namespace } else { "" })?;
        if !object::text(&object, "resourceVersion").is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(Status::failure(Reason::Unknown, message).into());
        }
        self.generate_name(&mut object);
        drop_duplicate_owners(context, &mut object, Moment::Sent);
        if ownership == Ownership::Writer {
            self.own(kind, context, (Part::Main, ""), None, &mut object);
        }

        let name = object::name(&object).to_owned();
        let attributes = Attributes {
            operation: Operation::Create,
            resource: names,
            subresource: "",
            namespace,
            name: &name,
            context,
            old: None,
        };
        for plugin in self.admission() {
            plugin.admit(self, &attributes, &mut object).await?;
        }

        object::set(&mut object, "uid", self.environment().uid());
        object::set(
            &mut object,
            "creationTimestamp",
            wherry_machinery::time::format_seconds(context.now_unix_seconds),
        );
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            object::unset(&mut object, field);
        }
        if kind.strategy.has_status() && !kind.strategy.keeps_status_at_creation() {
            object["status"] = json!({});
        }
        if kind.strategy.has_generation() {
            object::set(&mut object, "generation", 1);
        }
        kind.strategy.prepare_for_create(&facts, &mut object);
        drop_duplicate_owners(context, &mut object, Moment::Admitted);

        let mut errors = metadata::validate_object_meta(
            &object,
            kind.is_namespaced(),
            |name: &str| kind.strategy.validate_name(name),
            &Path::new("metadata"),
        );
        errors.extend(kind.strategy.validate(&facts, &object));
        if !errors.is_empty() {
            return Err(Status::invalid(names.group, names.kind, object::name(&object), &errors).into());
        }
        for warning in kind.strategy.warnings(&object, None) {
            context.warn(warning);
        }
        for plugin in self.admission() {
            plugin.validate(self, &attributes, &object).await?;
        }
        self.commit_new(kind, context, namespace, object).await
    }

    async fn commit_new(
        &self,
        kind: &Kind,
        context: &Context,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Refusal> {
        let name = object::name(&object).to_owned();
        let key = kind.key(namespace, &name)?;
        let exists = || Status::already_exists(kind.resource.group, kind.resource.name, &name);
        let reservation = match &kind.hooks {
            Some(hooks) => Some(hooks.before_commit(context, &mut object, None).await?),
            None => None,
        };
        if context.dry_run {
            return match self.store.get(&key).await.map_err(store_failed)? {
                Some(_) => Err(exists().into()),
                None => Ok(object),
            };
        }
        let change = Change::Put(kind.encode(&object));
        match self.store.transact(&key, Expected::Absent, change).await.map_err(store_failed)? {
            Outcome::Conflict { .. } => Err(exists().into()),
            Outcome::Committed { revision } => {
                if let Some(reservation) = reservation {
                    reservation.keep();
                }
                object::set(&mut object, "resourceVersion", revision.to_string());
                Ok(object)
            }
        }
    }

    fn generate_name(&self, object: &mut Value) {
        let base = object::text(object, "generateName");
        if !object::name(object).is_empty() || base.is_empty() {
            return;
        }
        let mut end = base.len().min(MAX_BASE_BYTES);
        while !base.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{}", &base[..end], self.environment().suffix(SUFFIX_CHARACTERS));
        object::set(object, "name", name);
    }
}

/// The object's namespace must be that of the request, or is set to it.
pub(super) fn match_namespace(object: &mut Value, namespace: &str) -> Result<(), Refusal> {
    let own = object::namespace(object);
    if own == namespace {
        return Ok(());
    }
    if namespace.is_empty() {
        object::unset(object, "namespace");
    } else if own.is_empty() {
        object::set(object, "namespace", namespace);
    } else {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message).into());
    }
    Ok(())
}

/// When duplicate owner references were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// In what the client sent.
    Sent,
    /// After patching and admission.
    Admitted,
}

/// Equal owner references are merged, with a warning.
pub(super) fn drop_duplicate_owners(context: &Context, object: &mut Value, moment: Moment) {
    let Some(owners) = object.pointer("/metadata/ownerReferences").and_then(Value::as_array) else { return };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut duplicates: Vec<String> = Vec::new();
    for owner in owners {
        if kept.contains(owner) {
            let uid = owner["uid"].as_str().unwrap_or_default().to_owned();
            if !duplicates.contains(&uid) {
                duplicates.push(uid);
            }
        } else {
            kept.push(owner.clone());
        }
    }
    if duplicates.is_empty() {
        return;
    }
    duplicates.sort();
    let when = match moment {
        Moment::Sent => "",
        Moment::Admitted => " after mutating admission happens",
    };
    context.warn(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and \
         may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        duplicates.join(", ")
    ));
    object::set(object, "ownerReferences", kept);
}

//! Who comes to own the fields that a request writes: the verbs' side of [`wherry_machinery::ownership`].
//!
//! Source: KEP-555; `k8s.io/apimachinery/pkg/util/managedfields`.

use serde_json::{Value, json};
use wherry_machinery::decode::{Document, zero_value};
use wherry_machinery::metadata;
use wherry_machinery::ownership::{
    Conflict, FieldSet, Managed, Manager, Operation, Writer, applied, check, compare, field_set, updated,
};
use wherry_machinery::schema::Schema;
use wherry_machinery::status::{Reason, Status, StatusCause, StatusDetails};

use super::context::Context;
use super::strategy::{Part, Resource};
use super::{Kind, Refusal, Registry, object};

/// The manager of what was there before the first apply of an object that nobody was known to manage.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The manager that may take fields over from the annotation of client-side apply.
const KUBECTL: &str = "kubectl";

/// The subresource that shows a part of several kinds in one form.
const SCALE: &str = "scale";

/// What client-side apply wrote the last time.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The largest value that the annotation is kept with, in bytes. Source: the limit of all annotations together.
const MAX_LAST_APPLIED_BYTES: usize = 256 * 1024;

/// What somebody wants an object to have.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The object, with the fields that are applied and no others.
    pub object: Value,
    /// Whether fields of others are taken over.
    pub force: bool,
}

impl Configuration {
    /// A configuration of this kind.
    ///
    /// # Errors
    /// 400, when it is of another.
    pub fn new(resource: &Resource, object: Value, force: bool) -> Result<Self, Refusal> {
        let (api_version, kind) = (metadata::api_version(&object), metadata::kind(&object));
        if (api_version, kind) != (resource.api_version().as_str(), resource.kind) {
            let version =
                if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") };
            return Err(Status::bad_request(format!("invalid object type: {version}, Kind={kind}")).into());
        }
        if object.pointer("/metadata/managedFields").is_some_and(|list| !list.is_null()) {
            return Err(Status::bad_request("metadata.managedFields must be nil").into());
        }
        Ok(Self { object, force })
    }
}

/// What a write to a part of an object leaves alone, whatever the request has there.
fn reset_fields(kind: &Kind, part: Part) -> FieldSet {
    match part {
        Part::Status => FieldSet::of_fields(&[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ]),
        Part::Main if kind.strategy.has_status() => FieldSet::of_fields(&[&["status"]]),
        Part::Main => FieldSet::default(),
    }
}

/// Whether the list is the one by which a client forgets all managers: of one empty entry.
fn forgets_all(list: Option<&Value>) -> bool {
    list.and_then(Value::as_array)
        .is_some_and(|entries| matches!(entries.as_slice(), [Value::Object(entry)] if entry.is_empty()))
}

fn list_of(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/managedFields")
}

fn set_list(object: &mut Value, managed: &Managed, before: Option<&Value>) {
    let is_as_before = before.is_some() && Managed::decode(before).is_ok_and(|before| before == *managed);
    match before {
        Some(list) if is_as_before => object::set(object, "managedFields", list.clone()),
        _ if managed.is_empty() => object::unset(object, "managedFields"),
        _ => object::set(object, "managedFields", managed.encode()),
    }
}

impl Registry {
    /// What a configuration of a `Scale` is to the object that it scales.
    ///
    /// # Errors
    /// 500, as in Kubernetes, when it is no `Scale`.
    pub fn scale_configuration(
        &self,
        kind: &Kind,
        scale: &Resource,
        configuration: Configuration,
    ) -> Result<Configuration, Refusal> {
        let schema = self.schema_of(scale);
        let schema = schema.ok_or_else(|| Box::new(Status::internal("no schema for Scale")))?;
        check_type(schema, &configuration.object)?;
        let mut object = json!({"apiVersion": kind.resource.api_version(), "kind": kind.resource.kind});
        object["metadata"] = configuration.object["metadata"].clone();
        if let Some(replicas) = configuration.object.pointer("/spec/replicas") {
            object["spec"] = json!({"replicas": replicas});
        }
        Ok(Configuration { object, ..configuration })
    }

    fn schema_of(&self, resource: &Resource) -> Option<Schema<'_>> {
        self.codec().schemas().root(resource.group, resource.version, resource.kind)
    }

    /// Gives what `new` has and `old` has not to whoever writes it, and takes it from everybody else.
    pub(super) fn own(
        &self,
        kind: &Kind,
        context: &Context,
        (part, subresource): (Part, &str),
        old: Option<&Value>,
        new: &mut Value,
    ) {
        let sent =
            new.get_mut("metadata").and_then(Value::as_object_mut).and_then(|m| m.remove("managedFields"));
        let before = old.and_then(list_of);
        let Some(schema) = self.schema_of(&kind.resource) else { return };
        let is_whole = subresource.is_empty();
        let from_client =
            Managed::decode(sent.as_ref()).ok().filter(|managed| is_whole && !managed.is_empty());
        let managed = match from_client {
            _ if is_whole && forgets_all(sent.as_ref()) => Managed::default(),
            Some(managed) => managed,
            None => Managed::decode(before).unwrap_or_default(),
        };
        // Nobody was known to manage it, or shall be forgotten: it stays so until somebody applies.
        if managed.is_empty() && old.is_some() {
            return;
        }
        let api_version = kind.resource.api_version();
        let reset = reset_fields(kind, part);
        let now = wherry_machinery::time::format_seconds(context.now_unix_seconds);
        let manager = Manager::new(&context.manager(), Operation::Update, &api_version, subresource);
        // What comes through a Scale has no time. Source: `managedfields.ScaleHandler`.
        let now = (subresource != SCALE).then_some(now.as_str());
        let writer = Writer { manager, api_version: &api_version, now, reset: &reset };
        let empty;
        let live = match old {
            Some(old) => old,
            None => {
                empty = zero_value(schema);
                &empty
            }
        };
        let managed = updated(schema, live, new, managed, &writer);
        set_list(new, &managed, before);
    }

    /// What becomes of an object (`null` if it is not there yet) when somebody applies a configuration.
    ///
    /// # Errors
    /// 409 with what belongs to others; 500, as in Kubernetes, when the configuration is not of its type.
    pub fn applied(
        &self,
        kind: &Kind,
        context: &Context,
        (part, subresource): (Part, &str),
        old: &Value,
        configuration: &Configuration,
    ) -> Result<Value, Refusal> {
        let resource = &kind.resource;
        let schema = self
            .schema_of(resource)
            .ok_or_else(|| Box::new(Status::internal(format!("no schema for {}", resource.kind))))?;
        let config = &configuration.object;
        check_type(schema, config)?;
        let (is_new, before) = (old.is_null(), list_of(old));
        let mut live = if is_new { zero_value(schema) } else { old.clone() };
        object::unset(&mut live, "managedFields");
        let api_version = resource.api_version();
        let now = wherry_machinery::time::format_seconds(context.now_unix_seconds);
        let nothing = FieldSet::default();
        let mut managed = Managed::decode(before).unwrap_or_default();
        if managed.is_empty() && !is_new {
            let manager = Manager::new(BEFORE_FIRST_APPLY, Operation::Update, &api_version, "");
            let writer = Writer { manager, api_version: &api_version, now: Some(&now), reset: &nothing };
            managed = updated(schema, &zero_value(schema), &live, managed, &writer);
        }
        let reset = reset_fields(kind, part);
        let manager = Manager::new(&context.field_manager, Operation::Apply, &api_version, subresource);
        let writer = Writer {
            manager,
            api_version: &api_version,
            now: (subresource != SCALE).then_some(now.as_str()),
            reset: &reset,
        };
        let run = |force: bool| applied(schema, &live, config, &managed, &writer, force);
        let outcome = match run(configuration.force) {
            Err(conflicts) if context.field_manager == KUBECTL => {
                let allowed = unchanged_since_last_applied(schema, &live);
                let left: Vec<Conflict> =
                    conflicts.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect();
                if left.is_empty() { run(true) } else { Err(left) }
            }
            outcome => outcome,
        };
        let (mut wanted, managed) = outcome.map_err(|conflicts| Box::new(conflict_status(&conflicts)))?;
        if context.field_manager == KUBECTL && last_applied(&live).is_some() {
            let mut text = config.to_string();
            text.push('\n');
            if text.len() > MAX_LAST_APPLIED_BYTES {
                text.clear();
            }
            wanted["metadata"]["annotations"][LAST_APPLIED] = text.into();
        }
        let (mut object, strict) = Document::from_value(wanted)
            .object(schema)
            .map_err(|error| Box::new(Status::failure(Reason::Unknown, error.to_string())))?;
        debug_assert!(strict.is_empty(), "the configuration was checked: {strict:?}");
        object["apiVersion"] = api_version.into();
        object["kind"] = resource.kind.into();
        set_list(&mut object, &managed, before);
        Ok(object)
    }
}

fn check_type(schema: Schema<'_>, config: &Value) -> Result<(), Refusal> {
    let faults = check(schema, config, false);
    let text = match faults.as_slice() {
        [] => return Ok(()),
        [fault] => fault.clone(),
        faults => format!("errors:\n  {}", faults.join("\n  ")),
    };
    let message = format!(
        "failed to create typed patch object ({}/{}; {}, Kind={}): {text}",
        object::namespace(config),
        object::name(config),
        metadata::api_version(config),
        metadata::kind(config),
    );
    Err(Status::failure(Reason::Unknown, message).into())
}

fn last_applied(object: &Value) -> Option<Value> {
    let text = object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    serde_json::from_str(text).ok()
}

/// The fields that client-side apply set and that are as it left them: who moves to server-side apply may have them.
fn unchanged_since_last_applied(schema: Schema<'_>, live: &Value) -> FieldSet {
    let Some(last) = last_applied(live) else { return FieldSet::default() };
    let difference = compare(schema, &last, live);
    let changed = difference.modified.union(&difference.added).union(&difference.removed);
    field_set(schema, &last).difference(&changed)
}

/// 409, with every field that belongs to somebody else.
pub(crate) fn conflict_status(conflicts: &[Conflict]) -> Status {
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message(None), one.field()),
        several => {
            let mut lines: Vec<String> = Vec::new();
            let mut named = None;
            for conflict in several {
                let manager = conflict.message(None).replacen("conflict", "conflicts", 1);
                if named.as_ref() != Some(&manager) {
                    lines.push(format!("{manager}:"));
                    named = Some(manager);
                }
                lines.push(format!("- {}", conflict.field()));
            }
            format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(|conflict| StatusCause {
        reason: "FieldManagerConflict".to_owned(),
        message: conflict.message(None),
        field: conflict.field(),
    });
    let details = StatusDetails { causes: causes.collect(), ..StatusDetails::default() };
    Status::failure(Reason::Conflict, message).with_details(details)
}

/// The refusal of a uid for an object that is not there.
pub(super) fn uid_of_nothing(kind: &Kind, name: &str, uid: &str) -> Refusal {
    let cause =
        format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
    Status::conflict(kind.resource.group, kind.resource.name, name, cause).into()
}

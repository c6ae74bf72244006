//! Event: stored as core/v1, also served as events.k8s.io/v1.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{dns_subdomain, immutable, qualified_name};
use super::json::{integer, is_absent, is_zero, text};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// How long an event is kept after its last write. Source: kube-apiserver's `--event-ttl`.
const TIME_TO_LIVE: Duration = Duration::from_secs(3600);
/// Bytes of a reporting instance, an action, a reason.
const MAX_BYTES: usize = 128;
/// Bytes of a message.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The fields that are named otherwise in events.k8s.io/v1: there, here.
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Through which group an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// core/v1.
    Core,
    /// events.k8s.io/v1, which is checked more strictly.
    Events,
}

/// `events`. Both groups store, and so validate, the core form.
pub(crate) struct EventStrategy(pub(crate) Form);

/// The names under which events are stored.
pub(crate) const STORED: Resource =
    Resource { group: "", version: "v1", name: "events", kind: "Event", scope: Scope::Namespaced };

impl Strategy for EventStrategy {
    fn resource(&self) -> Resource {
        match self.0 {
            Form::Core => STORED,
            Form::Events => Resource { group: "events.k8s.io", ..STORED },
        }
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn time_to_live(&self) -> Option<Duration> {
        Some(TIME_TO_LIVE)
    }

    fn default(&self, object: &mut Value) {
        if object.get("involvedObject").is_none() && object.get("regarding").is_some() {
            to_stored(object);
            complete(object);
            from_stored(object);
        } else if self.0 == Form::Core {
            complete(object);
        }
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        complete_stored(object);
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, _part: Part, object: &mut Value, _old: &Value) {
        complete_stored(object);
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let event = stored(object);
        let mut errors = validate_any(&event);
        if self.0 == Form::Events {
            errors.extend(series(&event));
            errors.extend(validate_new_form(&event));
        }
        errors
    }

    fn validate_update(&self, _facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let (event, old) = (stored(object), stored(old));
        let mut errors = validate_any(&event);
        if self.0 == Form::Events {
            if event.get("series") != old.get("series") {
                errors.extend(series(&event));
            }
            for (field, name) in [
                ("involvedObject", "involvedObject"),
                ("reason", "reason"),
                ("message", "message"),
                ("source", "source"),
                ("firstTimestamp", "firstTimestamp"),
                ("lastTimestamp", "lastTimestamp"),
                ("count", "count"),
                ("type", "type"),
                ("eventTime", "eventTime"),
                ("action", "action"),
                ("related", "related"),
                ("reportingComponent", "reportingController"),
                ("reportingInstance", "reportingInstance"),
            ] {
                let part = |event: &Value| event.get(field).filter(|value| !is_zero(Some(value))).cloned();
                errors.extend(immutable(part(&event).as_ref(), part(&old).as_ref(), &Path::new(name)));
            }
        }
        errors
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        let event = stored(object);
        let mut fields: BTreeMap<&'static str, String> =
            FIELDS.iter().map(|(field, pointer)| (*field, text(&event, pointer).to_owned())).collect();
        if text(&event, "/source/component").is_empty() {
            fields.insert("source", text(&event, "/reportingComponent").to_owned());
        }
        fields
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        match self.0 {
            Form::Core => CORE_NAMES,
            Form::Events => EVENTS_NAMES,
        }
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(cells(&stored(object), now_unix_seconds))
    }
}

/// The selectable fields and where their values stand in the stored form.
const FIELDS: &[(&str, &str)] = &[
    ("involvedObject.kind", "/involvedObject/kind"),
    ("involvedObject.namespace", "/involvedObject/namespace"),
    ("involvedObject.name", "/involvedObject/name"),
    ("involvedObject.uid", "/involvedObject/uid"),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    ("regarding.kind", "/involvedObject/kind"),
    ("regarding.namespace", "/involvedObject/namespace"),
    ("regarding.name", "/involvedObject/name"),
    ("regarding.uid", "/involvedObject/uid"),
    ("regarding.apiVersion", "/involvedObject/apiVersion"),
    ("regarding.resourceVersion", "/involvedObject/resourceVersion"),
    ("regarding.fieldPath", "/involvedObject/fieldPath"),
    ("reason", "/reason"),
    ("reportingComponent", "/reportingComponent"),
    ("reportingController", "/reportingComponent"),
    ("source", "/source/component"),
    ("type", "/type"),
];

const CORE_NAMES: &[&str] = &[
    "involvedObject.apiVersion",
    "involvedObject.fieldPath",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.resourceVersion",
    "involvedObject.uid",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const EVENTS_NAMES: &[&str] = &[
    "reason",
    "regarding.apiVersion",
    "regarding.fieldPath",
    "regarding.kind",
    "regarding.name",
    "regarding.namespace",
    "regarding.resourceVersion",
    "regarding.uid",
    "reportingController",
    "type",
];

/// The core form of an event in either form.
fn stored(object: &Value) -> Value {
    let mut event = object.clone();
    if event.get("regarding").is_some()
        || event.get("note").is_some()
        || event.get("reportingController").is_some()
    {
        to_stored(&mut event);
    }
    event
}

/// From events.k8s.io/v1 to core/v1.
pub(crate) fn to_stored(object: &mut Value) {
    rename(object, RENAMED.iter().map(|(there, here)| (*there, *here)));
    retype(object, "v1");
}

/// From core/v1 to events.k8s.io/v1.
pub(crate) fn from_stored(object: &mut Value) {
    rename(object, RENAMED.iter().map(|(there, here)| (*here, *there)));
    retype(object, "events.k8s.io/v1");
}

fn retype(object: &mut Value, version: &str) {
    if let Some(map) = object.as_object_mut()
        && map.contains_key("apiVersion")
    {
        map.insert("apiVersion".to_owned(), version.into());
    }
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn complete_stored(object: &mut Value) {
    if object.get("regarding").is_none() {
        complete(object);
    }
}

/// The fields that a core event always shows.
fn complete(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    for field in ["involvedObject", "source"] {
        let value = map.entry(field).or_insert(Value::Null);
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
    }
    for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        map.entry(field).or_insert(Value::Null);
    }
    for field in ["reportingComponent", "reportingInstance"] {
        let value = map.entry(field).or_insert(Value::Null);
        if value.is_null() {
            *value = Value::String(String::new());
        }
    }
}

/// What is wrong with any event.
fn validate_any(event: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let namespace = text(event, "/metadata/namespace");
    let involved = text(event, "/involvedObject/namespace");
    let mismatch = || {
        let path = Path::new("involvedObject").child("namespace");
        Error::invalid(&path, involved, "does not match event.namespace")
    };
    if is_absent(event.get("eventTime")) {
        let matches =
            if involved.is_empty() { matches!(namespace, "" | "default") } else { namespace == involved };
        if !matches {
            errors.push(mismatch());
        }
    } else {
        if involved.is_empty() && !matches!(namespace, "default" | "kube-system") {
            errors.push(mismatch());
        }
        let controller = text(event, "/reportingComponent");
        let path = Path::new("reportingController");
        if controller.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        errors.extend(qualified_name(controller, &path));
        for (field, required, max) in [
            ("reportingInstance", true, MAX_BYTES),
            ("action", true, MAX_BYTES),
            ("reason", true, MAX_BYTES),
            ("message", false, MAX_MESSAGE_BYTES),
        ] {
            let value = text(event, &format!("/{field}"));
            let path = Path::new(field);
            if required && value.is_empty() {
                errors.push(Error::required(&path, ""));
            }
            if value.len() > max {
                errors.push(Error::invalid(&path, "", &format!("can have at most {max} characters")));
            }
        }
    }
    errors.extend(dns_subdomain(namespace, &Path::new("namespace")));
    errors
}

fn series(event: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(series) = event.get("series").filter(|series| !series.is_null()) else { return errors };
    if integer(series, "/count") < 2 {
        errors.push(Error::invalid(&Path::new("series.count"), "", "should be at least 2"));
    }
    if is_absent(series.get("lastObservedTime")) {
        errors.push(Error::required(&Path::new("series.lastObservedTime"), ""));
    }
    errors
}

/// What is wrong with a new event of events.k8s.io/v1.
fn validate_new_form(event: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if is_absent(event.get("eventTime")) {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let kind = text(event, "/type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(Error::invalid(&Path::new("type"), "", &format!("has invalid value: {kind}")));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        if !is_zero(event.get(field)) {
            errors.push(Error::invalid(&Path::new(field), "", "needs to be unset"));
        }
    }
    if !text(event, "/source/component").is_empty() || !text(event, "/source/host").is_empty() {
        errors.push(Error::invalid(&Path::new("source"), "", "needs to be unset"));
    }
    errors
}

fn cells(event: &Value, now_unix_seconds: i64) -> Vec<Value> {
    let time = |pointer: &str| text(event, pointer);
    let first = if time("/firstTimestamp").is_empty() { time("/eventTime") } else { time("/firstTimestamp") };
    let mut last = if time("/lastTimestamp").is_empty() { first } else { time("/lastTimestamp") };
    let mut count = integer(event, "/count");
    if event.get("series").is_some_and(|series| !series.is_null()) {
        last = time("/series/lastObservedTime");
        count = integer(event, "/series/count");
    } else if count == 0 {
        count = 1;
    }
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    let name = text(event, "/involvedObject/name");
    let object = if name.is_empty() { kind } else { format!("{kind}/{name}") };
    let or = |a: &'static str, b: &'static str| {
        if text(event, a).is_empty() { text(event, b) } else { text(event, a) }
    };
    let component = or("/source/component", "/reportingComponent");
    let host = or("/source/host", "/reportingInstance");
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        table::since(last, now_unix_seconds).into(),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        object.into(),
        text(event, "/involvedObject/fieldPath").into(),
        source.into(),
        text(event, "/message").trim().into(),
        table::since(first, now_unix_seconds).into(),
        count.into(),
        table::name(event),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    #[test]
    fn a_core_event_shows_its_empty_fields() {
        let mut event =
            json!({"involvedObject": {"kind": "Pod"}, "reason": "Seen", "source": {"component": "t"}});
        EventStrategy(Form::Core).default(&mut event);
        assert_eq!(
            event,
            json!({"involvedObject": {"kind": "Pod"}, "reason": "Seen", "source": {"component": "t"}, "firstTimestamp": null,
                "lastTimestamp": null, "eventTime": null, "reportingComponent": "", "reportingInstance": ""})
        );
    }

    #[test]
    fn both_forms_are_the_same_event() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"kind": "Pod"}, "note": "n",
            "reportingController": "c", "deprecatedCount": 2, "reason": "R"});
        let mut core = new.clone();
        to_stored(&mut core);
        assert_eq!(
            core,
            json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"kind": "Pod"}, "message": "n",
                "reportingComponent": "c", "count": 2, "reason": "R"})
        );
        from_stored(&mut core);
        assert_eq!(core, new);
    }

    #[test]
    fn the_namespace_is_that_of_the_object() {
        let event =
            json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "b"}});
        assert_eq!(
            messages(&EventStrategy(Form::Core).validate(&facts(), &event)),
            [r#"involvedObject.namespace: Invalid value: "b": does not match event.namespace"#]
        );
    }

    #[test]
    fn the_new_form_has_required_fields() {
        let event =
            json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "type": "Odd"});
        assert_eq!(
            messages(&EventStrategy(Form::Events).validate(&facts(), &event)),
            ["eventTime: Required value", r#"type: Invalid value: "": has invalid value: Odd"#]
        );
    }

    #[test]
    fn the_row_reads_as_kubectl_get_events() {
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal",
            "reason": "Started", "message": " hello ", "source": {"component": "kubelet", "host": "n"}, "count": 3,
            "firstTimestamp": "2026-01-02T03:00:05Z", "lastTimestamp": "2026-01-02T03:04:00Z"});
        assert_eq!(
            Value::from(cells(&event, NOW)),
            json!(["5s", "Normal", "Started", "pod/p", "", "kubelet, n", "hello", "4m", 3, "e"])
        );
    }
}

use serde_json::{Value, json};

use super::*;
use crate::schema::Schemas;

const NOW: &str = "2026-01-02T03:04:05Z";

fn schemas() -> Schemas {
    Schemas::builtin().unwrap()
}

struct Object {
    value: Value,
    managed: Managed,
}

/// An object that several managers write, one after the other.
struct Story {
    schemas: Schemas,
    api_version: &'static str,
    kind: &'static str,
    object: Object,
}

impl Story {
    fn of(api_version: &'static str, kind: &'static str) -> Self {
        let object = Object { value: json!({}), managed: Managed::default() };
        Self { schemas: schemas(), api_version, kind, object }
    }

    fn update(&mut self, manager: &str, new: Value) {
        let schema = self.schemas.root_of(self.api_version, self.kind).unwrap();
        let reset = FieldSet::default();
        let manager = Manager::new(manager, Operation::Update, self.api_version, "");
        let writer = Writer { manager, api_version: self.api_version, now: Some(NOW), reset: &reset };
        let managed = std::mem::take(&mut self.object.managed);
        self.object.managed = updated(schema, &self.object.value, &new, managed, &writer);
        self.object.value = new;
    }

    fn apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), Vec<String>> {
        let schema = self.schemas.root_of(self.api_version, self.kind).unwrap();
        let reset = FieldSet::default();
        let manager = Manager::new(manager, Operation::Apply, self.api_version, "");
        let writer = Writer { manager, api_version: self.api_version, now: Some(NOW), reset: &reset };
        let (value, managed) =
            applied(schema, &self.object.value, &config, &self.object.managed, &writer, force).map_err(
                |conflicts| {
                    let text =
                        |conflict: &Conflict| format!("{}: {}", conflict.message(None), conflict.field());
                    conflicts.iter().map(text).collect::<Vec<_>>()
                },
            )?;
        self.object = Object { value, managed };
        Ok(())
    }

    fn owned(&self, manager: &str, operation: Operation) -> Value {
        let found = self.object.managed.iter().find(|(m, _)| m.name == manager && m.operation == operation);
        found.map_or(Value::Null, |(_, owned)| owned.fields.to_fields_v1())
    }
}

#[test]
fn fields_v1_is_read_and_written_as_it_was() {
    let fields = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:x": {}}, "f:set": {"v:\"a\"": {}, "v:1": {}}, "f:list": {"i:0": {}}});
    assert_eq!(FieldSet::from_fields_v1(&fields).unwrap().to_fields_v1(), fields);
    for bad in [json!([]), json!({"x": {}}), json!({"f:a": 1}), json!({"k:{": {}}), json!({"i:x": {}})] {
        assert_eq!(FieldSet::from_fields_v1(&bad), Err(Malformed), "{bad}");
    }
}

#[test]
fn a_conflict_names_the_manager_and_the_field_and_force_takes_it_over() {
    let mut story = Story::of("v1", "ConfigMap");
    story.apply("first", json!({"data": {"k1": "one", "k2": "one"}}), false).unwrap();
    assert_eq!(story.owned("first", Operation::Apply), json!({"f:data": {"f:k1": {}, "f:k2": {}}}));
    let second = json!({"data": {"k1": "two", "k3": "two"}});
    assert_eq!(
        story.apply("second", second.clone(), false).unwrap_err(),
        ["conflict with \"first\": .data.k1"]
    );
    story.apply("second", second, true).unwrap();
    assert_eq!(story.owned("first", Operation::Apply), json!({"f:data": {"f:k2": {}}}));
    assert_eq!(story.owned("second", Operation::Apply), json!({"f:data": {"f:k1": {}, "f:k3": {}}}));
    assert_eq!(story.object.value["data"], json!({"k1": "two", "k2": "one", "k3": "two"}));
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_has_it() {
    let mut story = Story::of("v1", "ConfigMap");
    story.apply("first", json!({"data": {"mine": "1", "shared": "1"}}), false).unwrap();
    story.apply("second", json!({"data": {"shared": "1"}}), false).unwrap();
    story.apply("first", json!({"data": {"other": "1"}}), false).unwrap();
    assert_eq!(story.object.value["data"], json!({"shared": "1", "other": "1"}));
    story.apply("second", json!({}), false).unwrap();
    assert_eq!(story.object.value["data"], json!({"other": "1"}));
}

#[test]
fn an_update_takes_what_it_changes_and_owns_what_it_makes_with_its_parent() {
    let mut story = Story::of("v1", "ConfigMap");
    story.update("maker", json!({"data": {"k1": "one", "k2": "one"}}));
    assert_eq!(story.owned("maker", Operation::Update), json!({"f:data": {".": {}, "f:k1": {}, "f:k2": {}}}));
    story.apply("other", json!({"data": {"k2": "two"}}), false).unwrap_err();
    story.apply("other", json!({"data": {"k2": "two"}}), true).unwrap();
    assert_eq!(story.owned("maker", Operation::Update), json!({"f:data": {".": {}, "f:k1": {}}}));
    story.update("editor", json!({"data": {"k1": "one", "k2": "three"}}));
    assert_eq!(story.owned("other", Operation::Apply), Value::Null);
    assert_eq!(story.owned("editor", Operation::Update), json!({"f:data": {"f:k2": {}}}));
    story.update("editor", json!({"data": {"k1": "one"}}));
    assert_eq!(story.owned("editor", Operation::Update), Value::Null);
}

#[test]
fn elements_of_lists_are_owned_by_their_keys_and_keep_their_order() {
    let mut story = Story::of("apps/v1", "Deployment");
    let containers = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
    story
        .apply(
            "first",
            containers(
                json!([{"name": "a", "image": "i", "command": ["x"], "ports": [{"containerPort": 80}]}]),
            ),
            false,
        )
        .unwrap();
    assert_eq!(
        story.owned("first", Operation::Apply).pointer("/f:spec/f:template/f:spec/f:containers"),
        Some(
            &json!({"k:{\"name\":\"a\"}": {".": {}, "f:command": {}, "f:image": {}, "f:name": {}, "f:ports":
            {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}})
        )
    );
    story.apply("second", containers(json!([{"name": "b", "image": "j"}])), false).unwrap();
    story
        .apply("second", containers(json!([{"name": "c", "image": "k"}, {"name": "b", "image": "j"}])), false)
        .unwrap();
    let names = |story: &Story| -> Vec<String> {
        let list = story.object.value.pointer("/spec/template/spec/containers").unwrap().as_array().unwrap();
        list.iter().map(|container| container["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&story), ["a", "c", "b"]);
    let changed = containers(json!([{"name": "a", "image": "i", "command": ["y"]}]));
    assert_eq!(
        story.apply("third", changed, false).unwrap_err(),
        ["conflict with \"first\": .spec.template.spec.containers[name=\"a\"].command"]
    );
    story.apply("second", containers(json!([{"name": "b", "image": "j"}])), false).unwrap();
    assert_eq!(names(&story), ["a", "b"]);
}

#[test]
fn a_configuration_of_the_wrong_types_is_refused_with_the_path() {
    let schemas = schemas();
    let schema = schemas.root_of("apps/v1", "Deployment").unwrap();
    for (config, fault) in [
        (json!({"spec": {"nope": 1}}), ".spec.nope: field not declared in schema"),
        (
            json!({"spec": {"minReadySeconds": "x"}}),
            ".spec.minReadySeconds: expected numeric (int or float), got string",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": {"a": "b"}}}}}),
            ".spec.template.spec.containers: expected list, got &{map[a:b]}",
        ),
    ] {
        assert_eq!(check(schema, &config, false), [fault]);
    }
}

#[test]
fn of_many_updaters_the_oldest_become_one() {
    let mut story = Story::of("v1", "ConfigMap");
    for number in 0..15 {
        let mut data = story.object.value.get("data").cloned().unwrap_or_else(|| json!({}));
        data[format!("k{number}")] = json!("v");
        story.update(&format!("m{number:02}"), json!({"data": data}));
    }
    let names: Vec<_> = story.object.managed.iter().map(|(manager, _)| manager.name.as_str()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert!(names.contains(&"ancient-changes") && names.contains(&"m14"), "{names:?}");
}

#[test]
fn managed_fields_that_are_none_are_told() {
    let entry = |operation: &str, version: &str, kind: &str| json!([{"manager": "m", "operation": operation, "apiVersion": version, "fieldsType": kind, "fieldsV1": {}}]);
    for (list, message) in [
        (entry("Fly", "v1", "FieldsV1"), "operation must be `Apply` or `Update`"),
        (entry("Apply", "", "FieldsV1"), "apiVersion must not be empty"),
        (entry("Apply", "v1", ""), "missing fieldsType in managed fields entry 0"),
        (entry("Apply", "v1", "X"), "invalid fieldsType \"X\" in managed fields entry 0"),
    ] {
        assert_eq!(Managed::decode(Some(&list)).unwrap_err().to_string(), message);
    }
}

//! OpenAPI 2 in protobuf, which is how kubectl reads it: to validate a `List`, and in older versions for everything.
//!
//! Source of the message numbers: gnostic's `openapi.v2.Document`.

use serde_json::{Map, Value};

/// The media type that clients ask for it by.
pub(super) const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The document in protobuf.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    out.message(2, info);
    let mut paths = Message::default();
    for (path, item) in entries(&document["paths"]) {
        paths.message(2, named(path, path_item(item)));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in entries(&document["definitions"]) {
        definitions.message(1, named(name, schema(definition)));
    }
    out.message(9, definitions);
    for requirement in list(&document["security"]) {
        let mut names = Message::default();
        for (name, _) in entries(requirement) {
            names.message(1, named(name, Message::default()));
        }
        out.message(12, names);
    }
    let mut security = Message::default();
    for (name, definition) in entries(&document["securityDefinitions"]) {
        let mut key = Message::default();
        for (number, field) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
            key.text(number, &definition[field]);
        }
        let mut item = Message::default();
        item.message(2, key);
        security.message(1, named(name, item));
    }
    out.message(13, security);
    out.0
}

/// A message on its way to the wire. Source: the protobuf encoding; fields that are absent are left out.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u64, message: Self) {
        self.bytes(number, &message.0);
    }

    fn text(&mut self, number: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u64, value: &Value) {
        for text in list(value) {
            self.text(number, text);
        }
    }

    fn flag(&mut self, number: u64, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(number << 3);
            self.varint(1);
        }
    }

    fn any(&mut self, number: u64, value: &Value) {
        if !value.is_null() {
            self.message(number, any(value));
        }
    }

    /// The fields whose names begin with `x-`.
    fn extensions(&mut self, number: u64, object: &Value) {
        for (name, value) in entries(object).filter(|(name, _)| name.starts_with("x-")) {
            self.message(number, named(name, any(value)));
        }
    }
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// An entry of a map.
fn named(name: &str, value: Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// Any value, as YAML; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    let methods =
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (number, method) in methods {
        if item[method].is_object() {
            out.message(number, operation(&item[method]));
        }
    }
    for parameter in list(&item["parameters"]) {
        out.message(9, parameters_item(parameter));
    }
    out.extensions(10, item);
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, &operation["tags"]);
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    for parameter in list(&operation["parameters"]) {
        out.message(8, parameters_item(parameter));
    }
    let mut responses = Message::default();
    for (code, answer) in entries(&operation["responses"]) {
        let mut response = Message::default();
        response.text(1, &answer["description"]);
        if answer["schema"].is_object() {
            let mut item = Message::default();
            item.message(1, schema(&answer["schema"]));
            response.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, response);
        responses.message(1, named(code, value));
    }
    out.message(9, responses);
    out.texts(10, &operation["schemes"]);
    out.flag(11, &operation["deprecated"]);
    out.extensions(13, operation);
    out
}

/// A parameter: in the body, or in the query or the path.
fn parameters_item(parameter: &Value) -> Message {
    let (mut item, mut either) = (Message::default(), Message::default());
    if parameter["in"] == "body" {
        let mut body = Message::default();
        body.text(1, &parameter["description"]);
        body.text(2, &parameter["name"]);
        body.text(3, &parameter["in"]);
        body.flag(4, &parameter["required"]);
        body.message(5, schema(&parameter["schema"]));
        body.extensions(6, parameter);
        either.message(1, body);
    } else {
        let is_path = parameter["in"] == "path";
        // In the query there is one field more, which moves what follows.
        let shift = u64::from(!is_path);
        let mut simple = Message::default();
        simple.flag(1, &parameter["required"]);
        simple.text(2, &parameter["in"]);
        simple.text(3, &parameter["description"]);
        simple.text(4, &parameter["name"]);
        simple.text(5 + shift, &parameter["type"]);
        simple.text(6 + shift, &parameter["format"]);
        simple.any(9 + shift, &parameter["default"]);
        simple.flag(19 + shift, &parameter["uniqueItems"]);
        simple.extensions(22 + shift, parameter);
        let mut place = Message::default();
        place.message(if is_path { 4 } else { 3 }, simple);
        either.message(2, place);
    }
    item.message(1, either);
    item
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    for (number, field) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description"), (13, "pattern")] {
        out.text(number, &value[field]);
    }
    out.any(5, &value["default"]);
    out.flag(16, &value["uniqueItems"]);
    out.texts(19, &value["required"]);
    for allowed in list(&value["enum"]) {
        out.message(20, any(allowed));
    }
    match &value["additionalProperties"] {
        Value::Object(_) => {
            let mut item = Message::default();
            item.message(1, schema(&value["additionalProperties"]));
            out.message(21, item);
        }
        Value::Bool(_) => {
            let mut item = Message::default();
            item.flag(2, &value["additionalProperties"]);
            out.message(21, item);
        }
        _ => {}
    }
    let mut types = Message::default();
    types.text(1, &value["type"]);
    types.texts(1, &value["type"]);
    if !types.0.is_empty() {
        out.message(22, types);
    }
    if value["items"].is_object() {
        let mut items = Message::default();
        items.message(1, schema(&value["items"]));
        out.message(23, items);
    }
    for part in list(&value["allOf"]) {
        out.message(24, schema(part));
    }
    if value["properties"].is_object() {
        let mut properties = Message::default();
        for (name, property) in entries(&value["properties"]) {
            properties.message(1, named(name, schema(property)));
        }
        out.message(25, properties);
    }
    out.flag(27, &value["readOnly"]);
    out.extensions(31, value);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_on_the_wire_as_gnostic_reads_it() {
        let bytes = schema(
            &json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/definitions/b"}},
            "x-kubernetes-list-type": "map"}),
        )
        .0;
        // required (19): "a"; type (22): {1: "object"}; properties (25): {1: {1: "a", 2: {1: "#/definitions/b"}}};
        // an extension (31): {1: name, 2: {2: yaml}}.
        let mut expected = vec![0x9a, 0x01, 1, b'a', 0xb2, 0x01, 8, 0x0a, 6];
        expected.extend(b"object");
        expected.extend([0xca, 0x01, 24, 0x0a, 22, 0x0a, 1, b'a', 0x12, 17, 0x0a, 15]);
        expected.extend(b"#/definitions/b");
        expected.extend([0xfa, 0x01, 33, 0x0a, 22]);
        expected.extend(b"x-kubernetes-list-type");
        expected.extend([0x12, 7, 0x12, 5]);
        expected.extend(b"\"map\"");
        assert_eq!(bytes, expected);
    }
}

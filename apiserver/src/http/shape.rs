//! Objects as Tables and as metadata.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wherry_machinery::status::{Reason, Status};

use super::negotiate::Shape;
use super::query::Query;
use crate::registry::{Kind, Refusal};

/// The columns of the built-in kinds, as kube-apiserver sends them.
const COLUMNS: &str = include_str!("../../data/table-columns.json");

/// A column of a Table.
#[derive(Debug, Clone, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    column_type: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    priority: i32,
}

/// What of each object goes with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// The columns by `resource.group`.
#[derive(Debug, Clone)]
pub(super) struct Columns(Arc<HashMap<String, Vec<Column>>>);

impl Columns {
    /// Reads the data that is built in.
    ///
    /// # Errors
    /// When the data is not what this code expects.
    pub(super) fn builtin() -> Result<Self, serde_json::Error> {
        Ok(Self(Arc::new(serde_json::from_str(COLUMNS)?)))
    }

    fn of(&self, kind: &Kind) -> Option<&[Column]> {
        let names = kind.resource;
        let key = if names.group.is_empty() {
            format!("{}/{}", names.version, names.name)
        } else {
            format!("{}/{}/{}", names.group, names.version, names.name)
        };
        self.0.get(&key).map(Vec::as_slice)
    }
}

/// How rows are made for one request.
#[derive(Debug, Clone)]
pub(super) struct TableForm {
    version: &'static str,
    include: IncludeObject,
    columns: Columns,
    now_unix_seconds: i64,
}

impl TableForm {
    /// Reads `includeObject`.
    ///
    /// # Errors
    /// 400, when it is not one of the known values.
    pub(super) fn new(
        version: &'static str,
        query: &Query,
        columns: Columns,
        now_unix_seconds: i64,
    ) -> Result<Self, Refusal> {
        let include = match query.first("includeObject").unwrap_or_default() {
            "" | "Metadata" => IncludeObject::Metadata,
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            other => {
                return Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be \
                     'Metadata', 'Object', 'None', or empty"
                ))
                .into());
            }
        };
        Ok(Self { version, include, columns, now_unix_seconds })
    }

    /// The Table of some objects; without column definitions for the later events of a watch.
    pub(super) fn table(&self, kind: &Kind, objects: &[Value], metadata: Value, with_columns: bool) -> Value {
        let columns = self.columns.of(kind);
        let rows: Vec<Value> = objects
            .iter()
            .map(|object| {
                let cells = columns.and_then(|_| kind.strategy.table_cells(object, self.now_unix_seconds));
                json!({"cells": cells.unwrap_or_else(|| plain_cells(object)), "object": self.included(object)})
            })
            .collect();
        let has_cells = objects
            .first()
            .is_none_or(|object| kind.strategy.table_cells(object, self.now_unix_seconds).is_some());
        let definitions = match columns {
            _ if !with_columns => Value::Null,
            Some(columns) if has_cells => columns.iter().map(definition).collect(),
            _ => plain_columns(),
        };
        json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{}", self.version), "metadata": metadata,
            "columnDefinitions": definitions, "rows": rows})
    }

    fn included(&self, object: &Value) -> Value {
        match self.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Object => object.clone(),
            IncludeObject::Metadata => partial_object(object, self.version),
        }
    }
}

fn definition(column: &Column) -> Value {
    json!({"name": column.name, "type": column.column_type, "format": column.format, "description": "",
        "priority": column.priority})
}

fn plain_columns() -> Value {
    json!([
        {"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "The name, unique among the objects of its kind in its namespace."},
        {"name": "Created At", "type": "date", "format": "", "priority": 0, "description": "When it was created."}
    ])
}

fn plain_cells(object: &Value) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
}

/// The metadata of an object.
pub(super) fn partial_object(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new()))})
}

/// The wrong one of PartialObjectMetadata and its list was asked for.
pub(super) fn wrong_partial(kind: &Kind, shape: Shape) -> Refusal {
    let type_name = format!("*core.{}", kind.resource.kind);
    let message = match shape {
        Shape::PartialObjectList(_) => {
            format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({type_name})"
            )
        }
        _ => format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({type_name}List)"
        ),
    };
    Status::failure(Reason::NotAcceptable, message).into()
}

/// The resource version of one object, as the metadata of its Table.
pub(super) fn version_metadata(object: &Value) -> Value {
    json!({"resourceVersion": object["metadata"]["resourceVersion"]})
}

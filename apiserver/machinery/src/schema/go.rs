//! Names of types as Go prints them.

use super::{Scalar, Schema, Shape};

/// The type's name in Go's messages.
pub(super) fn type_name(schema: Schema<'_>) -> String {
    if let Shape::Scalar(scalar) = schema.shape() {
        return scalar_name(scalar).to_owned();
    }
    if let Some(name) = schema.name() {
        // io.k8s.api.core.v1.PodSpec is v1.PodSpec: the package is the part before the type.
        let mut parts = name.rsplit('.');
        let (last, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        return format!("{package}.{last}");
    }
    match schema.shape() {
        Shape::Map { values, .. } => format!("map[string]{}", type_name(values)),
        Shape::List { items, .. } => format!("[]{}", type_name(items)),
        _ => "interface {}".to_owned(),
    }
}

fn scalar_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Bytes => "[]uint8",
        Scalar::Boolean => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Duration => "v1.Duration",
    }
}

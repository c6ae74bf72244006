//! Label selectors and field selectors: how lists, watches and controllers choose objects.
//!
//! Source: `k8s.io/apimachinery/pkg/labels`, `.../pkg/fields`, `.../apis/meta/v1/validation`.

mod field_selector;
mod label_selector;
mod lexer;
mod parser;

use std::collections::BTreeMap;
use std::fmt;

pub use field_selector::{FieldOperator, FieldRequirement, FieldSelector};
pub use label_selector::{LabelSelector, LabelSelectorRequirement, validate_label_selector};

use crate::field::{Error as FieldError, ErrorList, Path};
use crate::names;
use crate::status::Status;

/// How a requirement compares. The text is the one of Kubernetes' grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The key is there.
    Exists,
    /// The key is not there.
    DoesNotExist,
    /// The value is one of the values (`=`, `==` and `in`).
    In,
    /// The key is not there, or the value is none of the values (`!=` and `notin`).
    NotIn,
    /// The value is a number greater than the value.
    GreaterThan,
    /// The value is a number less than the value.
    LessThan,
}

/// How an [`Operator::In`] or [`Operator::NotIn`] of one value was written, so that it is written back the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Set,
    Equals,
    DoubleEquals,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted and without duplicates.
    values: Vec<String>,
    form: Form,
}

/// Conditions that must all hold; no conditions hold for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// `None` matches nothing.
    requirements: Option<Vec<Requirement>>,
}

/// A selector that cannot be read, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    message: String,
}

impl ParseError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl From<ParseError> for Status {
    fn from(error: ParseError) -> Self {
        Status::bad_request(error.message)
    }
}

/// Field errors as one text: alone, or in brackets.
fn aggregate(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => {
            let texts: Vec<String> = many.iter().map(FieldError::to_string).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}

fn check_key(key: &str, path: &Path) -> Option<FieldError> {
    let wrong = names::qualified_name(key);
    (!wrong.is_empty()).then(|| FieldError::invalid(path, key, &wrong.join("; ")))
}

impl Requirement {
    fn checked(
        key: &str,
        operator: Operator,
        mut values: Vec<String>,
        form: Form,
    ) -> Result<Self, ParseError> {
        let mut errors = ErrorList::new();
        errors.extend(check_key(key, &Path::new("key")));
        let path = Path::new("values");
        let invalid = |detail: &str| FieldError::invalid(&path, values.clone(), detail);
        match operator {
            Operator::In | Operator::NotIn => {
                if values.is_empty() {
                    errors.push(invalid("for 'in', 'notin' operators, values set can't be empty"));
                }
            }
            Operator::Exists | Operator::DoesNotExist => {
                if !values.is_empty() {
                    errors.push(invalid("values set must be empty for exists and does not exist"));
                }
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    errors.push(invalid("for 'Gt', 'Lt' operators, exactly one value is required"));
                }
                for (index, value) in values.iter().enumerate() {
                    if value.parse::<i64>().is_err() {
                        errors.push(FieldError::invalid(
                            &path.index(index),
                            value.as_str(),
                            "for 'Gt', 'Lt' operators, the value must be an integer",
                        ));
                    }
                }
            }
        }
        for (index, value) in values.iter().enumerate() {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(
                    &path.index(index).key(key),
                    value.as_str(),
                    &wrong.join("; "),
                ));
            }
        }
        if !errors.is_empty() {
            return Err(ParseError::new(aggregate(&errors)));
        }
        values.sort_unstable();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values, form })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with, sorted.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let is_listed = |value: &str| self.values.iter().any(|listed| listed == value);
        let compare = |holds: fn(&i64, &i64) -> bool| {
            let actual = value.and_then(|value| value.parse::<i64>().ok());
            let bound = self.values.first().and_then(|bound| bound.parse::<i64>().ok());
            actual.zip(bound).is_some_and(|(actual, bound)| holds(&actual, &bound))
        };
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In => value.is_some_and(is_listed),
            Operator::NotIn => !value.is_some_and(is_listed),
            Operator::GreaterThan => compare(i64::gt),
            Operator::LessThan => compare(i64::lt),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        let key = &self.key;
        match (self.operator, self.form) {
            (Operator::Exists, _) => write!(f, "{key}"),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::In, Form::Set) => write!(f, "{key} in ({values})"),
            (Operator::In, Form::Equals) => write!(f, "{key}={values}"),
            (Operator::In, Form::DoubleEquals) => write!(f, "{key}=={values}"),
            (Operator::NotIn, Form::Set) => write!(f, "{key} notin ({values})"),
            (Operator::NotIn, _) => write!(f, "{key}!={values}"),
            (Operator::GreaterThan, _) => write!(f, "{key}>{values}"),
            (Operator::LessThan, _) => write!(f, "{key}<{values}"),
        }
    }
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self { requirements: Some(Vec::new()) }
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Exactly these labels with these values, as a Service's or ReplicationController's selector. Values are not checked.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.clone()],
                form: Form::Equals,
            })
            .collect();
        Self { requirements: Some(requirements) }
    }

    /// Read the grammar of the `labelSelector` query parameter: `a=b,c!=d,e in (f,g),h,!i,j>1`.
    ///
    /// # Errors
    /// [`ParseError`], in Kubernetes' words; it becomes a 400.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = parser::parse(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements: Some(requirements) })
    }

    /// From a `meta/v1.LabelSelector` in JSON. `null` matches nothing, `{}` everything.
    ///
    /// # Errors
    /// [`ParseError`], in Kubernetes' words.
    pub fn from_label_selector(selector: &serde_json::Value) -> Result<Self, ParseError> {
        match LabelSelector::from_value(selector) {
            Some(selector) => selector.to_selector(),
            None => Ok(Self::nothing()),
        }
    }

    /// Whether these labels satisfy every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether the labels that `lookup` finds satisfy every requirement.
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .as_ref()
            .is_some_and(|requirements| requirements.iter().all(|r| r.matches(lookup(&r.key))))
    }

    /// Whether the labels of this object (`metadata.labels`) satisfy every requirement.
    pub fn matches_object(&self, object: &serde_json::Value) -> bool {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        self.matches_with(|key| labels.and_then(|labels| labels.get(key)).and_then(serde_json::Value::as_str))
    }

    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether it matches nothing, whatever the labels.
    pub fn is_nothing(&self) -> bool {
        self.requirements.is_none()
    }

    /// The requirements, sorted by key; empty for everything and for nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    /// The value that the selector demands of a label, if it demands one.
    pub fn exact_match(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements().iter().find(|requirement| requirement.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requirements().iter().map(Requirement::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests;

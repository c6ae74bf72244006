//! `meta/v1.LabelSelector`, the selector that objects carry.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Form, Operator, ParseError, Requirement, Selector};
use crate::field::{Error as FieldError, ErrorList, Path, go_quote};
use crate::{metadata, names};

/// `meta/v1.LabelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// `meta/v1.LabelSelectorRequirement`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelectorRequirement {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values, for `In` and `NotIn`.
    pub values: Vec<String>,
}

impl LabelSelector {
    /// From JSON; `None` if there is no object. Parts of the wrong type are left out: decoding has refused them before.
    pub fn from_value(selector: &Value) -> Option<Self> {
        let object = selector.as_object()?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let match_expressions =
            object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten();
        Some(Self {
            match_labels: metadata::string_map(object.get("matchLabels")),
            match_expressions: match_expressions
                .map(|requirement| LabelSelectorRequirement {
                    key: text(requirement.get("key")),
                    operator: text(requirement.get("operator")),
                    values: metadata::string_list(requirement.get("values")),
                })
                .collect(),
        })
    }

    /// The selector that decides. An empty one matches everything.
    ///
    /// # Errors
    /// [`ParseError`], in Kubernetes' words.
    pub fn to_selector(&self) -> Result<Selector, ParseError> {
        let mut requirements = Vec::with_capacity(self.match_labels.len() + self.match_expressions.len());
        for (key, value) in &self.match_labels {
            requirements.push(Requirement::checked(key, Operator::In, vec![value.clone()], Form::Equals)?);
        }
        for expression in &self.match_expressions {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(ParseError::new(format!(
                        "{} is not a valid label selector operator",
                        go_quote(other)
                    )));
                }
            };
            let values = expression.values.clone();
            requirements.push(Requirement::checked(&expression.key, operator, values, Form::Set)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector { requirements: Some(requirements) })
    }
}

/// Everything wrong with a `LabelSelector` in JSON; `null` is right.
pub fn validate_label_selector(selector: &Value, path: &Path) -> ErrorList {
    let Some(selector) = LabelSelector::from_value(selector) else {
        return ErrorList::new();
    };
    let mut errors = metadata::validate_label_map(&selector.match_labels, &path.child("matchLabels"));
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        match requirement.operator.as_str() {
            "In" | "NotIn" => {
                if requirement.values.is_empty() {
                    errors.push(FieldError::required(
                        &path.child("values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    ));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !requirement.values.is_empty() {
                    errors.push(FieldError::forbidden(
                        &path.child("values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
            }
            other => {
                errors.push(FieldError::invalid(
                    &path.child("operator"),
                    other,
                    "not a valid selector operator",
                ));
            }
        }
        for message in names::qualified_name(&requirement.key) {
            errors.push(FieldError::invalid(&path.child("key"), requirement.key.as_str(), &message));
        }
        for (index, value) in requirement.values.iter().enumerate() {
            for message in names::label_value(value) {
                errors.push(FieldError::invalid(
                    &path.child("values").index(index),
                    value.as_str(),
                    &message,
                ));
            }
        }
    }
    errors
}

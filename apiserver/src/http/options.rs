//! The options of the verbs, read from the query (and for deletions the body) and checked as Kubernetes checks them.

use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path, go_quote};
use wherry_machinery::selector::{FieldSelector, Selector};
use wherry_machinery::status::{Reason, Status};
use wherry_storage::Revision;

use super::query::Query;
use crate::cacher::selection::Selection;
use crate::registry::context::{Context, FieldValidation};
use crate::registry::{DeleteOptions, Kind, Preconditions, Propagation, Refusal};

/// The group that names option kinds in errors.
const META: &str = "meta.k8s.io";

/// A whole number from the query.
///
/// # Errors
/// 400 in Go's words.
pub(super) fn integer(query: &Query, key: &str) -> Result<Option<i64>, Refusal> {
    let Some(text) = query.given(key) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let why =
            if !text.is_empty() && text.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit()) {
                "value out of range"
            } else {
                "invalid syntax"
            };
        Box::new(Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", go_quote(text))))
    })
}

/// What a list or watch is asked for.
#[derive(Debug, Clone)]
pub(super) struct ListOptions {
    /// Which objects.
    pub(super) selection: Selection,
    /// `resourceVersion` as sent; empty if not.
    pub(super) resource_version: String,
    /// `resourceVersionMatch` as sent; empty if not.
    pub(super) version_match: String,
    /// At most so many; 0 means all.
    pub(super) limit: usize,
    /// The continue token; empty if none.
    pub(super) token: String,
    /// Whether a watcher wants bookmarks.
    pub(super) bookmarks: bool,
    /// Whether a watcher wants the present state first, if it says.
    pub(super) send_initial_events: Option<bool>,
    /// When to end a watch.
    pub(super) timeout_seconds: Option<u64>,
}

impl ListOptions {
    /// Reads and checks the options of a list or watch.
    ///
    /// # Errors
    /// 400 or 422, as Kubernetes words them.
    pub(super) fn parse(
        query: &Query,
        kind: &Kind,
        namespace: Option<String>,
        watch: bool,
    ) -> Result<Self, Refusal> {
        let limit = integer(query, "limit")?.unwrap_or_default();
        let timeout = integer(query, "timeoutSeconds")?;
        let options = Self {
            selection: selection(query, kind, namespace)?,
            resource_version: query.first("resourceVersion").unwrap_or_default().to_owned(),
            version_match: query.first("resourceVersionMatch").unwrap_or_default().to_owned(),
            limit: usize::try_from(limit).unwrap_or_default(),
            token: query.first("continue").unwrap_or_default().to_owned(),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.given("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            timeout_seconds: timeout
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0),
        };
        let errors = if watch { options.watch_errors() } else { options.list_errors() };
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(Status::invalid(META, "ListOptions", "", &errors).into())
        }
    }

    fn list_errors(&self) -> ErrorList {
        let path = Path::new("resourceVersionMatch");
        let mut errors = ErrorList::new();
        if self.send_initial_events.is_some() {
            errors.push(Error::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        let version_match = self.version_match.as_str();
        if version_match.is_empty() {
            return errors;
        }
        if self.resource_version.is_empty() {
            errors.push(Error::forbidden(
                &path,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !self.token.is_empty() {
            errors
                .push(Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(version_match, "Exact" | "NotOlderThan") {
            errors.push(Error::not_supported(&path, version_match, &["Exact", "NotOlderThan", ""]));
        }
        if version_match == "Exact" && self.resource_version == "0" {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(Error::forbidden(&path, detail));
        }
        errors
    }

    fn watch_errors(&self) -> ErrorList {
        let path = Path::new("resourceVersionMatch");
        let mut errors = ErrorList::new();
        let version_match = self.version_match.as_str();
        if self.send_initial_events.is_some() && version_match != "NotOlderThan" {
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(Error::forbidden(&path, detail));
        }
        if version_match.is_empty() {
            return errors;
        }
        if self.send_initial_events.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(Error::forbidden(&path, detail));
        }
        if version_match != "NotOlderThan" {
            errors.push(Error::not_supported(&path, version_match, &["NotOlderThan"]));
        }
        if !self.token.is_empty() {
            errors
                .push(Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        errors
    }

    /// The resource version as a revision.
    ///
    /// # Errors
    /// The text in which Go's `strconv` complains, for the caller to frame.
    pub(super) fn revision(&self) -> Result<Option<Revision>, String> {
        parse_version(&self.resource_version)
    }
}

/// A resource version as a revision; `None` if it is empty.
///
/// # Errors
/// The text in which Go's `strconv` complains, for the caller to frame.
pub(super) fn parse_version(text: &str) -> Result<Option<Revision>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let quoted = go_quote(text);
        format!(
            "resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: invalid syntax"
        )
    })
}

fn selection(query: &Query, kind: &Kind, namespace: Option<String>) -> Result<Selection, Refusal> {
    let labels = query.first("labelSelector").unwrap_or_default();
    let parsed = Selector::parse(labels).map_err(|error| Box::new(Status::bad_request(error.to_string())))?;
    let fields = match query.given("fieldSelector") {
        None => None,
        Some(text) => Some(field_selector(kind, text)?),
    };
    Ok(Selection { namespace, name: None, has_labels: !parsed.is_everything(), labels: parsed, fields })
}

fn field_selector(kind: &Kind, text: &str) -> Result<FieldSelector, Refusal> {
    let selector =
        FieldSelector::parse(text).map_err(|error| Box::new(Status::bad_request(error.to_string())))?;
    let known = kind.strategy.selectable_field_names();
    for requirement in selector.requirements() {
        let field = requirement.field.as_str();
        let is_metadata = matches!(field, "metadata.name" | "metadata.namespace");
        if is_metadata || known.contains(&field) {
            continue;
        }
        let message = if known.is_empty() {
            format!(
                "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                go_quote(field)
            )
        } else {
            format!("field label not supported: {field}")
        };
        return Err(Status::bad_request(message).into());
    }
    Ok(selector)
}

/// Reads the options that every write has into its context. `options_kind` is `CreateOptions`, `UpdateOptions`, `PatchOptions`.
///
/// # Errors
/// 422 with everything that is wrong.
pub(super) fn write_options(query: &Query, options_kind: &str, context: &mut Context) -> Result<(), Refusal> {
    write_options_and(query, options_kind, context, ErrorList::new())
}

/// The same for a patch; answers whether fields of others are to be taken over.
///
/// # Errors
/// 422 with everything that is wrong.
pub(super) fn patch_options(query: &Query, is_apply: bool, context: &mut Context) -> Result<bool, Refusal> {
    let mut errors = ErrorList::new();
    if is_apply && query.given("fieldManager").is_none_or(str::is_empty) {
        errors.push(Error::required(&Path::new("fieldManager"), "is required for apply patch"));
    }
    if !is_apply && query.given("force").is_some() {
        errors.push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
    }
    write_options_and(query, "PatchOptions", context, errors)?;
    Ok(query.flag("force"))
}

fn write_options_and(
    query: &Query,
    options_kind: &str,
    context: &mut Context,
    mut errors: ErrorList,
) -> Result<(), Refusal> {
    let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
    context.dry_run = !dry_run.is_empty();
    errors.extend(dry_run_errors(&dry_run));
    if let Some(manager) = query.given("fieldManager") {
        let path = Path::new("fieldManager");
        errors.extend(wherry_machinery::metadata::validate_field_manager(manager, &path));
        manager.clone_into(&mut context.field_manager);
    }
    context.field_validation = match query.first("fieldValidation").unwrap_or_default() {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errors.push(Error::not_supported(&Path::new("fieldValidation"), other, &supported));
            FieldValidation::Warn
        }
    };
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(META, options_kind, "", &errors).into()) }
}

fn dry_run_errors(given: &[&str]) -> ErrorList {
    if given.iter().all(|value| *value == "All") {
        return ErrorList::new();
    }
    let list = Value::from(given.iter().map(|value| Value::from(*value)).collect::<Vec<_>>());
    vec![Error::not_supported(&Path::new("dryRun"), list, &["All"])]
}

/// Reads the options of a deletion: those of the body, if there is one, else those of the query.
///
/// # Errors
/// 400 or 422, as Kubernetes words them.
pub(super) fn delete_options(
    query: &Query,
    body: Option<&Value>,
    context: &mut Context,
) -> Result<DeleteOptions, Refusal> {
    let grace = integer(query, "gracePeriodSeconds")?;
    let from_query = |key: &str| query.given(key).map(str::to_owned);
    let (grace, orphan, propagation, dry_run, preconditions) = match body {
        Some(body) => (
            body["gracePeriodSeconds"].as_i64(),
            body["orphanDependents"].as_bool(),
            body["propagationPolicy"].as_str().map(str::to_owned),
            strings(&body["dryRun"]),
            Preconditions {
                uid: body.pointer("/preconditions/uid").and_then(Value::as_str).map(str::to_owned),
                resource_version: body
                    .pointer("/preconditions/resourceVersion")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            },
        ),
        None => (
            grace,
            query.given("orphanDependents").map(|_| query.flag("orphanDependents")),
            from_query("propagationPolicy"),
            query.all("dryRun").filter(|value| !value.is_empty()).map(str::to_owned).collect(),
            Preconditions::default(),
        ),
    };
    let dry_run: Vec<&str> = dry_run.iter().map(String::as_str).collect();
    context.dry_run = !dry_run.is_empty();
    let mut errors = ErrorList::new();
    if orphan.is_some() && propagation.is_some() {
        let error = Error::invalid(
            &Path::new("propagationPolicy"),
            propagation.as_deref().unwrap_or_default(),
            "orphanDependents and deletionPropagation cannot be both set",
        );
        errors.push(error);
    }
    let propagation = match propagation.as_deref() {
        None => None,
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Background") => Some(Propagation::Background),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(Error::not_supported(&Path::new("propagationPolicy"), other, &supported));
            None
        }
    };
    errors.extend(dry_run_errors(&dry_run));
    if !errors.is_empty() {
        return Err(Status::invalid(META, "DeleteOptions", "", &errors).into());
    }
    Ok(DeleteOptions {
        // A negative grace period means one second. Source: `rest.BeforeDelete`.
        grace_period_seconds: grace.map(|seconds| u64::try_from(seconds).unwrap_or(1)),
        preconditions,
        orphan_dependents: orphan,
        propagation,
    })
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Checks the `timeout` parameter, which bounds a request as a whole.
///
/// # Errors
/// 400, if it is not a Go duration.
pub(super) fn check_timeout(query: &Query) -> Result<(), Refusal> {
    let Some(text) = query.given("timeout") else { return Ok(()) };
    if is_duration(text) {
        return Ok(());
    }
    let message =
        format!("invalid timeout specified in the request URL - time: invalid duration {}", go_quote(text));
    Err(Status::failure(Reason::BadRequest, message).into())
}

fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let digits = &rest[..rest.len() - number.len()];
        if digits.is_empty() || digits == "." || digits.matches('.').count() > 1 {
            return false;
        }
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let Some(unit) =
            units.into_iter().filter(|unit| number.starts_with(unit)).max_by_key(|unit| unit.len())
        else {
            return false;
        };
        rest = &number[unit.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_go_durations() {
        for good in ["10s", "-5s", "1h30m", "0", "1.5ms", "2m"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["abc", "5", "", "-", "1.2.3s", "s", "5x"] {
            assert!(!is_duration(bad), "{bad}");
        }
    }

    #[test]
    fn option_errors_are_worded_as_kubernetes_words_them() {
        let mut context = Context::new(crate::identity::Identity::anonymous(), std::time::Duration::ZERO);
        let table = [
            (
                "dryRun=Some",
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All""#,
            ),
            (
                "fieldValidation=Sometimes",
                r#"CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Sometimes": supported values: "", "Ignore", "Strict", "Warn""#,
            ),
        ];
        for (query, message) in table {
            let refusal = write_options(&Query::parse(query), "CreateOptions", &mut context).unwrap_err();
            assert_eq!((refusal.code, refusal.message.as_str()), (422, message));
        }
    }
}

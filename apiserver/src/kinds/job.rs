//! Job: pods that run until enough of them have succeeded.

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{immutable, label_selector, non_negative, s};
use super::json::{default_value, default_zero, flag, integer, is_zero, map_at, text, typed};
use super::pod::template;
use super::{table, workload};
use crate::registry::object;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `jobs`.
pub(crate) struct JobStrategy;

/// The label by which a Job finds its pods.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// The most completions of a Job whose pods are counted by index.
const MAX_INDEXED_PARALLELISM: i32 = 100_000;

/// What may not change, and how it is called.
const FIXED: &[&str] =
    &["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];

/// Fill in the specification of a Job, also of one that a CronJob will make.
pub(super) fn default_spec(spec: &mut Value) {
    workload::default_template(spec);
}

fn default_job(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        default_value(spec, "completions", 1);
    }
    default_value(spec, "parallelism", 1);
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    default_value(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    default_zero(spec, "completionMode", "NonIndexed");
    default_value(spec, "suspend", false);
    default_value(spec, "manualSelector", false);
    let replacement = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    default_zero(spec, "podReplacementPolicy", replacement);
    let rules = spec.pointer_mut("/podFailurePolicy/rules").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        for condition in rule["onPodConditions"].as_array_mut().into_iter().flatten() {
            default_zero(condition, "status", "True");
        }
    }
}

impl Strategy for JobStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "batch", version: "v1", name: "jobs", kind: "Job", scope: Scope::Namespaced }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = map_at(object, "spec") {
            default_spec(spec);
            default_job(spec);
        }
        label_like_template(object);
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        object["status"] = json!({});
        if !flag(object, "/spec/manualSelector") {
            select_own_pods(object);
        }
        label_like_template(object);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        // Pods are named after it and have the name as a label.
        wherry_machinery::names::dns1123_subdomain(name)
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: JobSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = validate_spec(&spec, &path);
        match &spec.selector {
            None => errors.push(Error::required(&path.child("selector"), "")),
            Some(selector) => errors.extend(label_selector(Some(selector), &path.child("selector"))),
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            let path = Path::new("status");
            let counts = ["active", "ready", "succeeded", "failed", "terminating"];
            let of = |field: &str| integer(object, &format!("/status/{field}"));
            return counts.iter().flat_map(|field| non_negative(of(field), &path.child(field))).collect();
        }
        let mut errors = self.validate(facts, object);
        let path = Path::new("spec");
        let (new_spec, old_spec) = (&object["spec"], &old["spec"]);
        // Of an Indexed Job the number may change, together with the parallelism.
        let is_elastic = text(new_spec, "/completionMode") == "Indexed"
            && new_spec["completions"] == new_spec["parallelism"]
            && old_spec["completions"] == old_spec["parallelism"];
        if !is_elastic {
            let field = path.child("completions");
            errors.extend(immutable(new_spec.get("completions"), old_spec.get("completions"), &field));
        }
        for field in FIXED {
            errors.extend(immutable(new_spec.get(field), old_spec.get(field), &path.child(field)));
        }
        let may_move =
            flag(old_spec, "/suspend") && old.pointer("/status/startTime").is_none_or(Value::is_null);
        let template = |spec: &Value| {
            let mut template = spec["template"].clone();
            if may_move {
                without_scheduling(&mut template);
            }
            template
        };
        errors.extend(fixed_template(&template(new_spec), &template(old_spec), &path.child("template")));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(object, old)
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("status.successful", integer(object, "/status/succeeded").to_string())])
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let (containers, images) = workload::template_cells(object);
        Some(vec![
            table::name(object),
            status_word(object).into(),
            completions(object).into(),
            duration(object, now_unix_seconds).into(),
            table::age(object, now_unix_seconds),
            containers,
            images,
            table::selector_text(object.pointer("/spec/selector")).into(),
        ])
    }
}

/// A Job without labels of its own has those of its pods.
fn label_like_template(object: &mut Value) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if is_zero(object.pointer("/metadata/labels"))
        && let Some(labels) = labels.filter(|labels| !is_zero(Some(labels)))
    {
        object["metadata"]["labels"] = labels;
    }
}

/// Its pods are those with its uid as a label.
fn select_own_pods(object: &mut Value) {
    let (uid, name) = (object::text(object, "uid").to_owned(), object::name(object).to_owned());
    let labels = &mut object["spec"]["template"]["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    for (label, value) in [
        ("controller-uid", &uid),
        (CONTROLLER_UID, &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        labels[label] = value.as_str().into();
    }
    object["spec"]["selector"] = json!({"matchLabels": {CONTROLLER_UID: uid}});
}

/// Without what may change in the template of a Job that never ran.
fn without_scheduling(template: &mut Value) {
    for (place, fields) in [
        ("metadata", &["labels", "annotations"] as &[&str]),
        ("spec", &["nodeSelector", "affinity", "tolerations", "schedulingGates"]),
    ] {
        if let Some(object) = template[place].as_object_mut() {
            object.retain(|name, _| !fields.contains(&name.as_str()));
        }
    }
}

fn fixed_template(new: &Value, old: &Value, path: &Path) -> ErrorList {
    if new == old {
        return ErrorList::new();
    }
    immutable(Some(new), Some(old), path)
}

/// Everything wrong with the specification of a Job, the selector excepted.
pub(super) fn validate_spec(spec: &JobSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let counts = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (field, count) in counts {
        if let Some(count) = count {
            errors.extend(non_negative(count, &path.child(field)));
        }
    }
    let is_indexed = s(&spec.completion_mode) == "Indexed";
    match s(&spec.completion_mode) {
        "Indexed" if spec.completions.is_none() => {
            let detail = "when completion mode is Indexed";
            errors.push(Error::required(&path.child("completions"), detail));
        }
        "Indexed" | "NonIndexed" | "" => {}
        other => errors.push(Error::not_supported(
            &path.child("completionMode"),
            other,
            &["Indexed", "NonIndexed"],
        )),
    }
    if is_indexed && spec.parallelism.is_some_and(|pods| pods > MAX_INDEXED_PARALLELISM) {
        let detail = format!(
            "must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed"
        );
        errors.push(Error::invalid(
            &path.child("parallelism"),
            spec.parallelism.unwrap_or_default(),
            &detail,
        ));
    }
    if !is_indexed {
        for (field, is_set) in [
            ("backoffLimitPerIndex", spec.backoff_limit_per_index.is_some()),
            ("maxFailedIndexes", spec.max_failed_indexes.is_some()),
            ("successPolicy", spec.success_policy.is_some()),
        ] {
            if is_set {
                let detail = "requires indexed completion mode";
                errors.push(Error::invalid(&path.child(field), Value::Null, detail));
            }
        }
    }
    errors.extend(pod_failure_policy(spec, path));
    errors.extend(validate_template(&spec.template, &path.child("template")));
    let restart = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    let restart_path = path.child("template").child("spec").child("restartPolicy");
    match restart.unwrap_or_default() {
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Error::invalid(&restart_path, "OnFailure", detail));
        }
        "Never" | "OnFailure" => {}
        "" | "Always" => {
            errors.push(Error::required(&restart_path, "valid values: \"OnFailure\", \"Never\""))
        }
        other => errors.push(Error::not_supported(&restart_path, other, &["OnFailure", "Never"])),
    }
    errors
}

fn validate_template(pods: &PodTemplateSpec, path: &Path) -> ErrorList {
    template::validate(pods, path)
}

fn pod_failure_policy(spec: &JobSpec, path: &Path) -> ErrorList {
    let Some(policy) = &spec.pod_failure_policy else { return ErrorList::new() };
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let path = path.child("podFailurePolicy").child("rules");
    let mut errors = ErrorList::new();
    if policy.rules.len() > 20 {
        errors.push(Error::too_many(&path, policy.rules.len(), 20));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let path = path.index(index);
        if !ACTIONS.contains(&rule.action.as_str()) {
            errors.push(Error::not_supported(&path.child("action"), rule.action.as_str(), ACTIONS));
        }
        let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
        match (&rule.on_exit_codes, conditions.is_empty()) {
            (None, true) | (Some(_), false) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                let detail = if conditions.is_empty() {
                    detail
                } else {
                    "specifying both OnExitCodes and OnPodConditions is not supported"
                };
                errors.push(Error::invalid(&path, Value::Null, detail));
            }
            _ => {}
        }
        if let Some(codes) = &rule.on_exit_codes {
            let path = path.child("onExitCodes");
            if !matches!(codes.operator.as_str(), "In" | "NotIn") {
                let operator = codes.operator.as_str();
                errors.push(Error::not_supported(&path.child("operator"), operator, &["In", "NotIn"]));
            }
            if codes.values.is_empty() {
                errors.push(Error::invalid(
                    &path.child("values"),
                    json!([]),
                    "at least one value is required",
                ));
            }
            for (at, code) in codes.values.iter().enumerate() {
                if codes.operator == "In" && *code == 0 {
                    let detail = "must not be 0 for the In operator";
                    errors.push(Error::invalid(&path.child("values").index(at), 0, detail));
                }
            }
        }
    }
    errors
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().find(|condition| condition["type"] == name && condition["status"] == "True")
}

fn status_word(object: &Value) -> &'static str {
    let is = |name: &str| condition(object, name).is_some();
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if !object["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(object: &Value) -> String {
    let succeeded = integer(object, "/status/succeeded");
    match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match integer(object, "/spec/parallelism") {
            pods if pods > 1 => format!("{succeeded}/1 of {pods}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn duration(object: &Value, now_unix_seconds: i64) -> String {
    let at = |field: &str| table::unix_seconds(text(object, &format!("/status/{field}")));
    match (at("startTime"), at("completionTime")) {
        (None, _) => String::new(),
        (Some(start), Some(end)) => table::human_duration(end - start),
        (Some(start), None) => table::human_duration(now_unix_seconds - start),
    }
}

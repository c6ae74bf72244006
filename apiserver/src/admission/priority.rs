//! Priority: a pod takes the value and the preemption policy of its PriorityClass.

use async_trait::async_trait;
use serde_json::Value;
use wherry_machinery::status::Status;

use super::{Admission, Attributes, Operation};
use crate::cacher::entry::Entry;
use crate::registry::{Refusal, Registry};

const CLASSES: (&str, &str, &str) = ("scheduling.k8s.io", "v1", "priorityclasses");

/// The plugin.
pub(super) struct Priority;

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, registry: &Registry, of: &Attributes<'_>, pod: &mut Value) -> Result<(), Refusal> {
        if !of.is("", "pods") {
            return Ok(());
        }
        match (of.operation, of.old) {
            (Operation::Update, Some(old)) => {
                carry(pod, old);
                Ok(())
            }
            (Operation::Create, _) => resolve(registry, of, pod).await,
            _ => Ok(()),
        }
    }
}

/// A client that leaves the numbers out of an update means the present ones.
fn carry(pod: &mut Value, old: &Value) {
    let class = |pod: &Value| pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    if class(pod) != class(old) {
        return;
    }
    for field in ["priority", "preemptionPolicy"] {
        if pod["spec"].get(field).is_none()
            && let Some(value) = old["spec"].get(field)
        {
            pod["spec"][field] = value.clone();
        }
    }
}

async fn resolve(registry: &Registry, of: &Attributes<'_>, pod: &mut Value) -> Result<(), Refusal> {
    let forbidden = |why: String| Box::new(Status::forbidden("", "pods", of.name, why));
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if name.is_empty() {
        default_class(registry).await?
    } else {
        let found = registry.lookup(CLASSES, "", &name).await?;
        Some(found.ok_or_else(|| forbidden(format!("no PriorityClass with name {name} was found")))?)
    };
    let value = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or_default();
    let policy = class
        .as_ref()
        .and_then(|class| class["preemptionPolicy"].as_str())
        .unwrap_or("PreemptLowerPriority")
        .to_owned();
    if let Some(class) = &class
        && name.is_empty()
    {
        pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    if let Some(given) = pod["spec"]["priority"].as_i64()
        && given != value
    {
        return Err(forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        )));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str()
        && given != policy
    {
        return Err(forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    pod["spec"]["priority"] = value.into();
    pod["spec"]["preemptionPolicy"] = policy.into();
    Ok(())
}

/// The class of pods that name none: of those that say they are it, the lowest.
async fn default_class(registry: &Registry) -> Result<Option<Value>, Refusal> {
    let (group, version, resource) = CLASSES;
    let Some(kind) = registry.kind(group, version, resource) else { return Ok(None) };
    registry.refresh().await?;
    let classes = kind.cacher.snapshot(None, 0).entries;
    let defaults = classes.iter().map(|entry: &std::sync::Arc<Entry>| entry.value());
    Ok(defaults.filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64()))
}

//! `pods/ephemeralcontainers`: containers added to a pod that runs already.

use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::{annotations, diff, internal_form, update};
use crate::kinds::json::{carry_over, list, map_at, text};

/// Take nothing but the ephemeral containers from what a client sent.
pub(crate) fn prepare(pod: &mut Value, old: &Value) {
    let Some(sent) = pod.get("spec").cloned() else { return };
    carry_over(pod, "spec", old);
    carry_over(pod, "status", old);
    if let Some(spec) = map_at(pod, "spec") {
        carry_over(spec, "ephemeralContainers", &sent);
    }
}

/// Everything wrong with a change of ephemeral containers, beside what is wrong with the pod itself.
pub(crate) fn validate(pod: &Value, old: &Value) -> ErrorList {
    if update::annotations_of(old).contains_key(annotations::MIRROR) {
        return vec![Error::forbidden(&Path::new(""), "static pods do not support ephemeral containers")];
    }
    let path = Path::new("spec").child("ephemeralContainers");
    let new = list(pod, "/spec/ephemeralContainers");
    let mut errors = ErrorList::new();
    for before in list(old, "/spec/ephemeralContainers") {
        let name = text(before, "/name");
        let Some(after) = new.iter().find(|container| text(container, "/name") == name) else {
            let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
            errors.push(Error::forbidden(&path, &detail));
            continue;
        };
        let print = |container: &Value| internal_form::print_lines("EphemeralContainer", container);
        let (before, after) = (print(before), print(after));
        if before != after {
            let difference = diff::unified(&before, &after);
            let detail = format!("existing ephemeral containers {name:?} may not be changed\n{difference}");
            errors.push(Error::forbidden(&path, &detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn containers_are_added_and_neither_changed_nor_removed() {
        let old = json!({"spec": {"ephemeralContainers": [{"name": "dbg", "image": "d"}]}});
        let added = json!({"spec": {"ephemeralContainers": [{"name": "b", "image": "x"}, {"name": "dbg", "image": "d"}]}});
        assert!(validate(&added, &old).is_empty());
        let changed = json!({"spec": {"ephemeralContainers": [{"name": "dbg", "image": "other"}]}});
        assert_eq!(
            messages(&validate(&changed, &old)),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"dbg\" may not be changed\n@@ -1,6 +1,6 @@\n {\n  \"Name\": \"dbg\",\n- \"Image\": \"d\",\n+ \"Image\": \"other\",\n  \"Command\": null,\n  \"Args\": null,\n  \"WorkingDir\": \"\",\n"
            ]
        );
        assert_eq!(
            messages(&validate(&json!({"spec": {}}), &old)),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"dbg\" may not be removed\n"
            ]
        );
    }
}

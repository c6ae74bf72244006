use serde_json::json;

use super::*;
use crate::registry::strategy::Scope;

struct Plain;

impl Strategy for Plain {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "configmaps", kind: "ConfigMap", scope: Scope::Namespaced }
    }
}

fn cacher() -> Arc<Cacher> {
    let cacher = Arc::new(Cacher::new(Arc::new(Plain), None));
    cacher.reset(BTreeMap::new(), 1);
    cacher
}

fn change(cacher: &Cacher, name: &str, label: Option<&str>, revision: Revision) {
    let key: Arc<str> = format!("ns/{name}").into();
    let object = label.map(|label| {
        let object = json!({"metadata": {"name": name, "namespace": "ns", "labels": {"l": label}}});
        Entry::new(&cacher.prefix, Arc::clone(&key), &cacher.prefix.stored(&object), revision).unwrap()
    });
    cacher.apply(vec![(key, object, revision)]);
}

#[test]
fn an_object_that_stops_matching_is_deleted_for_the_watcher_with_its_last_matching_state() {
    let cacher = cacher();
    let mut watcher = cacher.watch_after(1).unwrap();
    change(&cacher, "a", Some("in"), 2);
    change(&cacher, "a", Some("out"), 3);
    change(&cacher, "a", Some("in"), 4);
    change(&cacher, "a", None, 5);
    let labels = wherry_machinery::selector::Selector::parse("l=in").unwrap();
    let selection = selection::Selection { labels, has_labels: true, ..selection::Selection::all(None) };
    let lines: Vec<String> = watcher
        .read(10)
        .unwrap()
        .iter()
        .filter_map(|event| Some((event, selection.sees(cacher.strategy(), event)?)))
        .map(|(event, event_type)| {
            let line: Value = serde_json::from_slice(&event.line(event_type).unwrap()).unwrap();
            let metadata = &line["object"]["metadata"];
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            format!(
                "{} {} {}",
                text(&line["type"]),
                text(&metadata["resourceVersion"]),
                text(&metadata["labels"]["l"])
            )
        })
        .collect();
    assert_eq!(lines, ["ADDED 2 in", "DELETED 3 in", "ADDED 4 in", "DELETED 5 in"]);
}

#[test]
fn the_past_is_rebuilt_from_the_events() {
    let cacher = cacher();
    change(&cacher, "a", Some("1"), 2);
    change(&cacher, "b", Some("1"), 3);
    change(&cacher, "a", Some("2"), 4);
    change(&cacher, "b", None, 5);
    let at = |revision| -> Vec<(String, u64)> {
        let entries = cacher.snapshot_at(Some("ns"), revision).unwrap();
        entries.iter().map(|entry| (entry.name().to_owned(), entry.revision())).collect()
    };
    assert_eq!(at(5), [("a".to_owned(), 4)]);
    assert_eq!(at(4), [("a".to_owned(), 4), ("b".to_owned(), 3)]);
    assert_eq!(at(3), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
    assert_eq!(at(1), []);
    assert!(cacher.snapshot_at(None, 0).is_err());
}

#[test]
fn a_namespace_whose_name_begins_like_another_is_not_mixed_in() {
    let cacher = cacher();
    change(&cacher, "a", Some("1"), 2);
    assert_eq!(cacher.snapshot(Some("n"), 2).entries.len(), 0);
    assert_eq!(cacher.snapshot(Some("ns"), 2).entries.len(), 1);
}

#[tokio::test]
async fn a_stuck_watcher_is_told_and_holds_nobody_up() {
    let cacher = cacher();
    let mut stuck = cacher.watch_after(1).unwrap();
    let mut quick = cacher.watch_after(1).unwrap();
    let mut seen = 0;
    for revision in 2..10_000 {
        change(&cacher, "a", Some("1"), revision);
        if revision % 1000 == 0 {
            quick.changed().await;
            seen += quick.read(5000).unwrap().len();
        }
    }
    seen += quick.read(5000).unwrap().len();
    assert_eq!(seen, 9998);
    assert!(stuck.read(1).is_err());
}

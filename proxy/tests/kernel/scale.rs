//! Many Services. `cargo test -- --ignored --nocapture` prints how long changes take.

use std::time::{Duration, Instant};

use wherry_proxy::{ProxyMode, rules::Planner};

use crate::{
    fixture::{Fixture, MODES, tcp},
    netns::can_be_made,
    objects::Objects,
};

const PORTS: &str = r#"[{"port":8080}]"#;
const ONE: &str = r#"[{"addresses":["10.244.0.2"]},{"addresses":["10.244.0.3"]}]"#;
const TWO: &str = r#"[{"addresses":["10.244.0.2"]}]"#;

fn spec(index: usize) -> String {
    format!(r#"{{"clusterIP":"10.96.{}.{}","ports":[{{"port":80}}]}}"#, index / 250, index % 250 + 1)
}

fn many(count: usize) -> Objects {
    (0..count).fold(Objects::default(), |objects, index| {
        objects.add(&format!("s{index}"), &spec(index), PORTS, ONE)
    })
}

fn measure(mode: ProxyMode, count: usize, changes: usize) {
    let fixture = Fixture::new(mode);
    let objects = many(count);
    let mut planner = Planner::default();
    let ruleset = objects.plan(&mut planner);
    let started = Instant::now();
    fixture.apply(ruleset);
    let all = started.elapsed();
    let mut planned = Duration::ZERO;
    let mut times: Vec<Duration> = Vec::new();
    let mut changed = objects.clone();
    for index in 0..changes {
        let endpoints = if index % 2 == 0 { TWO } else { ONE };
        changed = changed.with("s7", &spec(7), &[(PORTS, endpoints)]);
        let started = Instant::now();
        let ruleset = changed.plan(&mut planner);
        planned = started.elapsed();
        let started = Instant::now();
        assert_eq!(fixture.apply(ruleset).changed, 1);
        times.push(started.elapsed());
    }
    let started = Instant::now();
    assert!(fixture.verify());
    let verified = started.elapsed();
    fixture.restart();
    let ruleset = changed.plan(&mut planner);
    let started = Instant::now();
    fixture.apply(ruleset);
    let restarted = started.elapsed();
    assert!(tcp(&fixture.node, "10.96.0.8:80").is_ok());
    times.sort();
    eprintln!(
        "{mode}: {count} Services in {all:?}; one change: planned in {planned:?}, in force in {:?} (median), {:?} (worst); compared in {verified:?}; after a restart in {restarted:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

#[test]
fn a_thousand_services_are_served() {
    if can_be_made("a_thousand_services") {
        for mode in MODES {
            measure(mode, 1000, 4);
        }
    }
}

#[test]
#[ignore = "takes minutes with iptables; for the figures"]
fn ten_thousand_services_are_served() {
    if can_be_made("ten_thousand_services") {
        measure(ProxyMode::Nftables, 10_000, 20);
        measure(ProxyMode::Iptables, 10_000, 4);
    }
}

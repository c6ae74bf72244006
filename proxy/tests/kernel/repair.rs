//! Restarts, and damage that others do.

use std::time::Instant;

use wherry_proxy::ProxyMode;

use crate::{
    fixture::{Fixture, MODES, tcp},
    netns::can_be_made,
    objects::Objects,
};

const PORTS: &str = r#"[{"port":8080}]"#;
const ONE: &str = r#"[{"addresses":["10.244.0.2"]}]"#;

fn spec(ip: &str) -> String {
    format!(
        r#"{{"clusterIP":"{ip}","type":"NodePort","sessionAffinity":"ClientIP","ports":[{{"port":80,"nodePort":30080}}]}}"#
    )
}

#[test]
fn a_new_run_replaces_what_a_former_one_left() {
    if !can_be_made("a_new_run_replaces") {
        return;
    }
    for mode in MODES {
        let fixture = Fixture::new(mode);
        let former = Objects::default().with("gone", &spec("10.96.0.7"), &[(PORTS, ONE)]);
        fixture.apply(
            former.with("stays", &spec("10.96.0.8").replace("30080", "30081"), &[(PORTS, ONE)]).ruleset(),
        );
        let now = Objects::default().with("stays", &spec("10.96.0.8"), &[(PORTS, ONE)]);
        fixture.restart();
        let started = Instant::now();
        fixture.apply(now.ruleset());
        eprintln!("{mode}: in force {} ms after a restart", started.elapsed().as_millis());
        assert_eq!(tcp(&fixture.node, "10.96.0.8:80").unwrap().name, "one", "{mode}");
        let rules = fixture.rules();
        assert!(!rules.contains("10.96.0.7") && !rules.contains("30081"), "{mode}: {rules}");
        assert!(fixture.verify(), "{mode}");
        let jumps = rules.matches("WHERRY-SERVICES").count();
        fixture.restart();
        fixture.apply(now.ruleset());
        assert_eq!(fixture.rules().matches("WHERRY-SERVICES").count(), jumps, "{mode}: nothing twice");
    }
}

#[test]
fn damage_by_others_is_noticed_and_repaired() {
    if !can_be_made("damage_by_others") {
        return;
    }
    let nft: &[&[&str]] = &[
        &["nft", "flush", "ruleset"],
        &["nft", "delete", "table", "ip", "wherry"],
        &["nft", "flush", "chain", "ip", "wherry", "nat_output"],
        &["nft", "flush", "map", "ip", "wherry", "service_ips"],
        &["nft", "add", "rule", "ip", "wherry", "services", "drop"],
    ];
    let iptables: &[&[&str]] = &[
        &["iptables", "-t", "nat", "-F"],
        &["iptables", "-t", "nat", "-D", "OUTPUT", "-j", "WHERRY-SERVICES"],
        &["iptables", "-t", "nat", "-F", "WHERRY-IPS"],
        &["ip6tables", "-t", "filter", "-F"],
    ];
    for mode in MODES {
        let fixture = Fixture::new(mode);
        let ruleset = Objects::default().with("s", &spec("10.96.0.1"), &[(PORTS, ONE)]).ruleset();
        fixture.apply(ruleset.clone());
        assert!(fixture.verify(), "{mode}");
        // What others do to what is theirs is none of ours.
        fixture.node.command("nft", &["add", "table", "ip", "theirs"]);
        assert!(fixture.verify(), "{mode}");
        fixture.apply(Objects::default().ruleset());
        fixture.apply(ruleset.clone());
        assert!(fixture.verify(), "{mode}");
        for damage in if mode == ProxyMode::Nftables { nft } else { iptables } {
            fixture.node.command(damage[0], &damage[1..]);
            assert!(!fixture.verify(), "{mode} {damage:?}: {}", fixture.rules());
            fixture.apply(ruleset.clone());
            assert!(fixture.verify(), "{mode} {damage:?}");
            assert_eq!(tcp(&fixture.node, "10.96.0.1:80").unwrap().name, "one", "{mode} {damage:?}");
        }
    }
}

#[test]
fn a_change_upon_damaged_rules_ends_with_the_right_ones() {
    if !can_be_made("a_change_upon_damaged_rules") {
        return;
    }
    for mode in MODES {
        let fixture = Fixture::new(mode);
        let first = Objects::default().with("s", &spec("10.96.0.1"), &[(PORTS, ONE)]);
        fixture.apply(first.ruleset());
        fixture.node.command("nft", &["flush", "ruleset"]);
        let second = first.with("t", &spec("10.96.0.2").replace("30080", "30081"), &[(PORTS, ONE)]).ruleset();
        // The change fails on what is not there; the proxy's loop applies again.
        for _ in 0..2 {
            if fixture.try_apply(second.clone()).is_ok() {
                break;
            }
        }
        if !fixture.verify() {
            fixture.apply(second);
        }
        assert!(fixture.verify(), "{mode}");
        for ip in ["10.96.0.1:80", "10.96.0.2:80"] {
            assert_eq!(tcp(&fixture.node, ip).unwrap().name, "one", "{mode}");
        }
    }
}

//! The programs that read and change the kernel's tables.

use std::{collections::BTreeMap, io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::layout::PREFIX;
use crate::rules::Family;

/// A table's name.
pub(super) type Table = &'static str;

/// Address translation.
pub(super) const NAT: Table = "nat";
/// What is let through.
pub(super) const FILTER: Table = "filter";
/// The tables that we use.
pub(super) const TABLES: [Table; 2] = [NAT, FILTER];

/// With a hundred thousand rules a change takes tens of seconds.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(300);

/// How long to wait for another program that changes the tables, seconds.
const LOCK_TIMEOUT_SECONDS: &str = "10";

fn program(family: Family, what: &str) -> String {
    match family {
        Family::V4 => format!("iptables-{what}"),
        Family::V6 => format!("ip6tables-{what}"),
    }
}

/// Change tables: each in one step, nothing else in them touched.
pub(super) async fn restore(family: Family, input: String) -> io::Result<()> {
    let mut child = Command::new(program(family, "restore"))
        .args(["--noflush", "--wait", LOCK_TIMEOUT_SECONDS])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let write = async {
        match stdin {
            Some(mut stdin) => stdin.write_all(input.as_bytes()).await,
            None => Ok(()),
        }
    };
    let run = async { tokio::join!(write, child.wait_with_output()) };
    let (written, output) = timeout(PROGRAM_TIMEOUT, run).await?;
    let output = output?;
    if !output.status.success() {
        return Err(failed(&program(family, "restore"), &output.stderr));
    }
    written
}

fn failed(program: &str, stderr: &[u8]) -> io::Error {
    let words: String = String::from_utf8_lossy(stderr).chars().take(500).collect();
    io::Error::other(format!("{program}: {}", words.trim()))
}

/// What a table holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Our chains, with the number of their rules.
    pub(super) chains: BTreeMap<String, usize>,
    /// Rules of other chains that lead into ours: chain and rule.
    pub(super) jumps: Vec<(String, String)>,
}

/// Look at a table.
pub(super) async fn save(family: Family, table: Table) -> io::Result<Found> {
    let name = program(family, "save");
    let run = Command::new(&name).args(["-t", table]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PROGRAM_TIMEOUT, run).await??;
    if !output.status.success() {
        return Err(failed(&name, &output.stderr));
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// What a listing holds of ours. Pure.
fn parse(listing: &str) -> Found {
    let mut found = Found::default();
    for line in listing.lines() {
        if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
            if chain.starts_with(PREFIX) {
                found.chains.entry(chain.to_owned()).or_default();
            }
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' ')) {
            if chain.starts_with(PREFIX) {
                *found.chains.entry(chain.to_owned()).or_default() += 1;
            } else if rule.split(' ').any(|word| word.starts_with(PREFIX)) {
                found.jumps.push((chain.to_owned(), rule.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_for_our_chains_and_what_leads_into_them() {
        let listing = "# by iptables-save\n*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n:WHERRY-IPS - [0:0]\n\
            -A PREROUTING -j WHERRY-SERVICES\n-A PREROUTING -j DOCKER\n-A WHERRY-IPS -d 10.96.0.1/32 -j WHERRY-SVC-1\n\
            -A WHERRY-IPS -d 10.96.0.2/32 -j WHERRY-SVC-2\nCOMMIT\n";
        let found = parse(listing);
        assert_eq!(found.chains, BTreeMap::from([("WHERRY-IPS".to_owned(), 2)]));
        assert_eq!(found.jumps, [("PREROUTING".to_owned(), "-j WHERRY-SERVICES".to_owned())]);
    }
}

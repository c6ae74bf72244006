//! The pod's `/etc/hosts`, which the kubelet writes and mounts: its own name, and `hostAliases`.
//!
//! Source: hosts(5).

use std::net::IpAddr;
use std::path::Path;

/// The largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The addresses of `host` in the file; none if it cannot be read.
pub(super) async fn find(file: &Path, host: &str) -> Vec<IpAddr> {
    let size = tokio::fs::metadata(file).await.map_or(u64::MAX, |metadata| metadata.len());
    if size > MAX_FILE_BYTES {
        return Vec::new();
    }
    match tokio::fs::read_to_string(file).await {
        Ok(text) => find_in(&text, host),
        Err(error) => {
            tracing::debug!(file = %file.display(), %error, "a pod's file of hosts cannot be read");
            Vec::new()
        }
    }
}

fn find_in(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let ip: IpAddr = words.next()?.parse().ok()?;
            words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)).then_some(ip)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_aliases_are_found_in_any_case() {
        let text = "# pods\n127.64.0.5\tp.s.ns.svc.cluster.local\tp\n10.1.2.3 a.remote B.Remote # b.wrong\nx y\nfd00::1 p\n";
        for (host, expected) in [
            ("p", &["127.64.0.5", "fd00::1"][..]),
            ("b.remote.", &["10.1.2.3"]),
            ("A.REMOTE", &["10.1.2.3"]),
            ("b.wrong", &[]),
            ("y", &[]),
        ] {
            let found: Vec<String> = find_in(text, host).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{host}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_or_too_large_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hosts");
        assert!(find(&file, "a").await.is_empty());
        std::fs::write(&file, "10.0.0.1 a\n").unwrap();
        assert_eq!(find(&file, "a").await.len(), 1);
        std::fs::write(&file, "10.0.0.1 a\n".repeat(30_000)).unwrap();
        assert!(find(&file, "a").await.is_empty());
    }
}

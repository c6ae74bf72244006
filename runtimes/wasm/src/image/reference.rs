//! Image names, normalised as Docker does: `hello` is `docker.io/library/hello:latest`.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// A complete image name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// The longest name, in bytes. Source: the distribution specification allows 255 for registry and repository together.
const MAX_NAME_BYTES: usize = 255;

const DEFAULT_REGISTRY: &str = "docker.io";

impl Reference {
    /// Host, with its port if there is one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path below the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `sha256:…`, when the name pins the content.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The tag; a name without tag and digest has `latest`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The same repository, by this digest.
    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether this is `sha256:` and 64 lower-case hexadecimal digits.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case words joined by `.`, `_`, `__` or dashes.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edge = |b: Option<u8>| b.is_some_and(alphanumeric);
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        && !text.contains("..")
        && !text.contains("___")
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        }),
    };
    host_ok && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let invalid = |why| Error::Name { name: name.chars().take(300).collect(), why };
        if name.is_empty() {
            return Err(invalid("it is empty"));
        }
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(invalid("the digest is not sha256 and 64 hexadecimal digits")),
            None => (name, None),
        };
        // The first component is a registry when it could not be part of a repository on Docker's hub.
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => (DEFAULT_REGISTRY, rest),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if !is_registry(registry) {
            return Err(invalid("the registry is not a host name with an optional port"));
        }
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(invalid("the tag has characters that a tag may not have")),
            None => (path, None),
        };
        if path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(invalid(
                "the repository must be lower case, of letters, digits and single separators",
            ));
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + repository.len() > MAX_NAME_BYTES {
            return Err(invalid("it is too long"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (given, expected) in [
            ("hello", "docker.io/library/hello:latest"),
            ("hello:v1", "docker.io/library/hello:v1"),
            ("me/hello", "docker.io/me/hello:latest"),
            ("docker.io/hello", "docker.io/library/hello:latest"),
            ("index.docker.io/me/hello:1.0", "docker.io/me/hello:1.0"),
            ("localhost/hello", "localhost/hello:latest"),
            ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            (&format!("hello@{digest}"), &format!("docker.io/library/hello@{digest}")),
            (&format!("r.example/hello:v1@{digest}"), &format!("r.example/hello:v1@{digest}")),
        ] {
            assert_eq!(given.parse::<Reference>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_could_not_be_a_name_is_refused() {
        let long = "a".repeat(300);
        for bad in [
            "",
            "Hello",
            "a//b",
            "a/../b",
            "a:b:c",
            "a:",
            "a@sha256:12",
            "a@md5:abc",
            "-a",
            "a-",
            "ex ample/x",
            "r.example:99999/x",
            "a/b\n",
            "../x",
            "x:..",
            ":v1",
            "r.example/",
            &long,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }
}

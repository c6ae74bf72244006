//! Keys, built from validated parts only.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// `/registry/<group>/<resource>/<namespace>/<name>`, or without namespace for cluster-scoped resources. The core group
/// is written `core`, so that no part is ever empty. Cheap to clone: the state, the history and every reader share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// The start of keys: ends in `/`, so that one name is never the prefix of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

/// A part that cannot stand in a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} cannot be a part of a key")]
pub struct KeyError {
    /// The part.
    pub part: String,
}

const ROOT: &str = "/registry/";

fn check(part: &str) -> Result<&str, KeyError> {
    let bad = part.is_empty()
        || part.len() > 512
        || part == "."
        || part == ".."
        || part.bytes().any(|b| b == b'/' || b == b'%' || b.is_ascii_control());
    if bad { Err(KeyError { part: part.to_owned() }) } else { Ok(part) }
}

fn group_part(group: &str) -> &str {
    if group.is_empty() { "core" } else { group }
}

impl Key {
    /// The key of an object; `namespace` is `None` for cluster-scoped resources.
    ///
    /// # Errors
    /// [`KeyError`] when a part is empty, too long, or has a character that cannot stand in a path.
    pub fn new(group: &str, resource: &str, namespace: Option<&str>, name: &str) -> Result<Self, KeyError> {
        let prefix = Prefix::new(group, resource, namespace)?;
        Ok(Self(format!("{}{}", prefix.0, check(name)?).into()))
    }

    /// A key that a backend read back from its own storage.
    pub(crate) fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// All objects of a resource, or those of one namespace.
    ///
    /// # Errors
    /// As for [`Key::new`].
    pub fn new(group: &str, resource: &str, namespace: Option<&str>) -> Result<Self, KeyError> {
        let mut text = format!("{ROOT}{}/{}/", check(group_part(group))?, check(resource)?);
        if let Some(namespace) = namespace {
            text.push_str(check(namespace)?);
            text.push('/');
        }
        Ok(Self(text))
    }

    /// Everything the store holds.
    pub fn all() -> Self {
        Self(ROOT.to_owned())
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key is under this prefix.
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }
}

/// Ordered maps of keys can be searched by text.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_could_leave_their_place_are_refused() {
        for bad in ["", ".", "..", "a/b", "a%2fb", "a\nb"] {
            assert!(Key::new("", "pods", Some("default"), bad).is_err(), "{bad:?}");
            assert!(Prefix::new("", "pods", Some(bad)).is_err(), "{bad:?}");
        }
        let key = Key::new("", "pods", Some("default"), "a").unwrap();
        assert_eq!(key.as_str(), "/registry/core/pods/default/a");
        assert!(Prefix::new("", "pods", None).unwrap().contains(&key));
        assert!(!Prefix::new("", "pods", Some("def")).unwrap().contains(&key));
    }
}

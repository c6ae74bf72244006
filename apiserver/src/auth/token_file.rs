//! A file of fixed tokens, one a line: `token,user,uid,"group1,group2"`.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::identity::Identity;

/// Users by token. Tokens are kept as digests, so that finding one takes the same time whatever it is.
#[derive(Debug, Default)]
pub struct TokenFile {
    users: HashMap<[u8; 32], Identity>,
}

/// A line that is not a token, user and uid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the token file must have at least 3 columns (token, user name, user uid)")]
pub struct ParseError {
    /// Which, from 1.
    pub line: usize,
}

impl TokenFile {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`ParseError`] for the first bad line.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, user, uid, rest @ ..] = columns.as_slice() else {
                return Err(ParseError { line: index + 1 });
            };
            if token.is_empty() || user.is_empty() {
                return Err(ParseError { line: index + 1 });
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty());
            let mut identity = Identity::new(user.as_str(), groups);
            identity.uid.clone_from(uid);
            users.insert(Sha256::digest(token.as_bytes()).into(), identity);
        }
        Ok(Self { users })
    }

    /// Whose token it is.
    pub fn identity(&self, token: &str) -> Option<&Identity> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.users.get(&digest)
    }
}

/// The columns of a line of comma-separated values, quotes removed.
fn columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            other => {
                if let Some(last) = columns.last_mut() {
                    last.push(other);
                }
            }
        }
    }
    columns.iter().map(|column| column.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users_by_token() {
        let file = TokenFile::parse("# fixed\n\nt1,ann,u1,\"a, b\"\nt2, bob, u2\n").unwrap();
        let ann = file.identity("t1").unwrap();
        assert_eq!((ann.user.as_str(), ann.uid.as_str()), ("ann", "u1"));
        assert_eq!(ann.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(file.identity("t2").unwrap().groups, ["system:authenticated"]);
        assert_eq!(file.identity("t3"), None);
        assert_eq!(TokenFile::parse("t1,ann\n").unwrap_err().line, 1);
        assert_eq!(TokenFile::parse("t1,ann,1\n,x,2").unwrap_err().line, 2);
    }
}

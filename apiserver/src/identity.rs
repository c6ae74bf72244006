//! Who makes a request, once authentication (or the in-process caller) has said so.

use std::collections::BTreeMap;

/// The group of everybody whose credentials were accepted.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of everybody without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// A user as Kubernetes knows one (`user.Info`): names and groups, nothing stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user name, such as `system:kube-scheduler`.
    pub user: String,
    /// A unique id, if the authenticator knows one (service accounts).
    pub uid: String,
    /// The groups, in the order in which the authenticator gave them.
    pub groups: Vec<String>,
    /// What else the authenticator knows, such as the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user with groups; [`AUTHENTICATED`] is added unless the user is anonymous.
    pub fn new<I, S>(user: impl Into<String>, groups: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let mut identity = Self {
            user: user.into(),
            groups: groups.into_iter().map(Into::into).collect(),
            ..Self::default()
        };
        if identity.user != ANONYMOUS && !identity.is_in(AUTHENTICATED) {
            identity.groups.push(AUTHENTICATED.to_owned());
        }
        identity
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self { user: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// The API server itself, or an administrator in the same process.
    pub fn admin(user: impl Into<String>) -> Self {
        Self::new(user, [MASTERS])
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::new(
            format!("system:serviceaccount:{namespace}:{name}"),
            ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        )
    }

    /// The kubelet of a node.
    pub fn node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), ["system:nodes"])
    }

    /// Whether the user is in the group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name, if the user is a kubelet.
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in("system:nodes") { self.user.strip_prefix("system:node:") } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_but_the_anonymous_is_authenticated() {
        assert!(Identity::new("ann", ["a"]).is_in(AUTHENTICATED));
        assert!(!Identity::anonymous().is_in(AUTHENTICATED));
        assert_eq!(Identity::node("n1").node_name(), Some("n1"));
        assert_eq!(Identity::new("system:node:n1", ["x"]).node_name(), None);
    }
}

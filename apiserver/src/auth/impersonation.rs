//! Acting as somebody else: the `Impersonate-*` headers.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.

use std::collections::BTreeMap;

use http::HeaderMap;
use wherry_machinery::Status;
use wherry_machinery::field::go_quote;

use super::attributes::{Attributes, ResourceTarget, Target};
use super::authorizer::{Authorizer, Decision, forbidden};
use crate::http::query::percent_decode;
use crate::identity::{ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED};
use crate::registry::Refusal;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Whom a request wants to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Whom the headers ask for; `None` if for nobody.
fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, Refusal> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let groups: Vec<String> =
        headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.entry(percent_decode(key).to_ascii_lowercase()).or_default().push(value.to_owned());
        }
    }
    let wanted = Wanted { user: text(USER), uid: text(UID), groups, extra };
    if !wanted.user.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted.groups.is_empty() && wanted.extra.is_empty() && wanted.uid.is_empty() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&wanted)))
        .into())
}

/// The user as Go's `%#v` shows it.
fn go_syntax(wanted: &Wanted) -> String {
    let strings = |values: &[String]| {
        if values.is_empty() {
            "[]string(nil)".to_owned()
        } else {
            format!("[]string{{{}}}", values.iter().map(|v| go_quote(v)).collect::<Vec<_>>().join(", "))
        }
    };
    let extra = if wanted.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let pairs: Vec<String> = wanted
            .extra
            .iter()
            .map(|(key, values)| format!("{}:{}", go_quote(key), strings(values)))
            .collect();
        format!("map[string][]string{{{}}}", pairs.join(", "))
    };
    format!(
        "&user.DefaultInfo{{Name:{}, UID:{}, Groups:{}, Extra:{extra}}}",
        go_quote(&wanted.user),
        go_quote(&wanted.uid),
        strings(&wanted.groups)
    )
}

/// The identity that the headers ask for, if the requestor may take it. `None` if they ask for nobody.
///
/// # Errors
/// 400 for headers without a user, 403 when it is not allowed.
pub fn impersonated(
    authorizer: &Authorizer,
    attributes: &Attributes<'_>,
    headers: &HeaderMap,
) -> Result<Option<Identity>, Refusal> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    if !may_impersonate(authorizer, attributes.identity, &wanted, "impersonate") {
        constrained(authorizer, attributes, &wanted)?;
    }
    Ok(Some(identity(wanted)))
}

/// The `namespace:name` of a service account's user name.
fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Constrained impersonation: a right to act as such a user, and a right to do this very thing as one.
fn constrained(authorizer: &Authorizer, attributes: &Attributes<'_>, wanted: &Wanted) -> Result<(), Refusal> {
    let mode = if service_account(&wanted.user).is_some() {
        "serviceaccount"
    } else if wanted.user.starts_with("system:node:") {
        "arbitrary-node"
    } else {
        "user-info"
    };
    let verb = format!("impersonate-on:{mode}:{}", attributes.verb);
    let on = Attributes { verb: &verb, ..*attributes };
    if let Decision::NoOpinion { reason } = authorizer.decide(&on) {
        return Err(forbidden(&on, &reason).into());
    }
    let verb = format!("impersonate:{mode}");
    if may_impersonate(authorizer, attributes.identity, wanted, &verb) {
        return Ok(());
    }
    let target = ResourceTarget {
        group: "authentication.k8s.io",
        resource: "users",
        name: &wanted.user,
        ..ResourceTarget::default()
    };
    let attributes =
        Attributes { identity: attributes.identity, verb: &verb, target: Target::Resource(target) };
    Err(forbidden(&attributes, "").into())
}

/// Whether every part of the wanted identity may be taken. `impersonate` knows users and groups in the core group;
/// the constrained verbs know all in `authentication.k8s.io`.
fn may_impersonate(authorizer: &Authorizer, requestor: &Identity, wanted: &Wanted, verb: &str) -> bool {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let core = if verb == "impersonate" { "" } else { AUTHENTICATION };
    let may = |target: ResourceTarget<'_>| {
        authorizer.allows(&Attributes { identity: requestor, verb, target: Target::Resource(target) })
    };
    let plain = |group, resource, name| ResourceTarget { group, resource, name, ..ResourceTarget::default() };
    let user = match service_account(&wanted.user) {
        Some((namespace, name)) => may(ResourceTarget {
            group: core,
            resource: "serviceaccounts",
            namespace,
            name,
            ..ResourceTarget::default()
        }),
        None => may(plain(core, "users", &wanted.user)),
    };
    user && wanted.groups.iter().all(|group| may(plain(core, "groups", group)))
        && (wanted.uid.is_empty() || may(plain(AUTHENTICATION, "uids", &wanted.uid)))
        && wanted.extra.iter().all(|(key, values)| {
            values.iter().all(|value| {
                may(ResourceTarget {
                    group: AUTHENTICATION,
                    resource: "userextras",
                    subresource: key,
                    name: value,
                    ..ResourceTarget::default()
                })
            })
        })
}

/// The wanted identity with the groups that go without saying.
fn identity(wanted: Wanted) -> Identity {
    let mut groups = wanted.groups;
    if groups.is_empty()
        && let Some((namespace, _)) = service_account(&wanted.user)
    {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let known = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
    if !groups.iter().any(known) {
        let group = if wanted.user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        groups.push(group.to_owned());
    }
    Identity { user: wanted.user, uid: wanted.uid, groups, extra: wanted.extra }
}

/// Takes the headers off, so that nothing behind sees them.
pub fn strip(headers: &mut HeaderMap) {
    let names: Vec<http::HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::rbac::Kind;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    fn get_configmap(identity: &Identity) -> Attributes<'_> {
        let target = ResourceTarget {
            resource: "configmaps",
            namespace: "ns",
            name: "a",
            ..ResourceTarget::default()
        };
        Attributes { identity, verb: "get", target: Target::Resource(target) }
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        let admin = Identity::admin("root");
        let error = impersonated(&Authorizer::default(), &get_configmap(&admin), &headers(&[(GROUP, "g")]))
            .unwrap_err();
        let text = r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} without impersonating a user name"#;
        assert_eq!((error.code, error.message.as_str()), (400, text));
    }

    #[test]
    fn an_identity_has_the_groups_that_go_without_saying() {
        let admin = Identity::admin("root");
        let take = |pairs: &[(&'static str, &'static str)]| {
            impersonated(&Authorizer::default(), &get_configmap(&admin), &headers(pairs)).unwrap().unwrap()
        };
        assert_eq!(take(&[(USER, "ann"), (GROUP, "g")]).groups, ["g", AUTHENTICATED]);
        assert_eq!(take(&[(USER, ANONYMOUS)]).groups, [UNAUTHENTICATED]);
        let bot = take(&[(USER, "system:serviceaccount:ns:bot")]);
        assert_eq!(bot.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
        let scoped = take(&[(USER, "ann"), (UID, "u-1"), ("impersonate-extra-scope", "x")]);
        assert_eq!((scoped.uid.as_str(), &scoped.extra["scope"]), ("u-1", &vec!["x".to_owned()]));
    }

    #[test]
    fn every_part_of_the_identity_needs_a_right() {
        let authorizer = Authorizer::default();
        let role = json!({"rules": [{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"]}]});
        let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "bob"}]});
        authorizer.apply_policy(Kind::ClusterRole, "", "r", Some(&role));
        authorizer.apply_policy(Kind::ClusterRoleBinding, "", "b", Some(&binding));
        let bob = Identity::new("bob", ["x"]);
        let take = |pairs: &[(&'static str, &'static str)]| {
            impersonated(&authorizer, &get_configmap(&bob), &headers(pairs))
        };
        assert_eq!(take(&[(USER, "ann")]).unwrap().unwrap().user, "ann");
        for pairs in
            [&[(USER, "root")][..], &[(USER, "ann"), (GROUP, "system:masters")], &[(USER, "ann"), (UID, "1")]]
        {
            let error = take(pairs).unwrap_err();
            assert_eq!(
                error.message,
                r#"configmaps "a" is forbidden: User "bob" cannot impersonate-on:user-info:get resource "configmaps" in API group "" in the namespace "ns""#
            );
        }
    }
}

//! What an authoriser decides about.

use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::identity::Identity;

/// One request, or one question about a request that might be made.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub identity: &'a Identity,
    /// The verb, such as `list`.
    pub verb: &'a str,
    /// What it is about.
    pub target: Target<'a>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A resource.
    Resource(ResourceTarget<'a>),
    /// Any other path.
    Path(&'a str),
}

/// A resource, or an object of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceTarget<'a> {
    /// The API group; empty for core.
    pub group: &'a str,
    /// The plural name.
    pub resource: &'a str,
    /// The subresource; empty if none.
    pub subresource: &'a str,
    /// The namespace; empty for the whole cluster.
    pub namespace: &'a str,
    /// The object's name; empty for all.
    pub name: &'a str,
    /// The `fieldSelector` of a list or watch.
    pub field_selector: Option<&'a str>,
    /// The `labelSelector` of a list or watch.
    pub label_selector: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of_request(identity: &'a Identity, info: &'a RequestInfo, query: &'a Query) -> Self {
        let target = if info.is_resource_request {
            Target::Resource(ResourceTarget {
                group: &info.api_group,
                resource: &info.resource,
                subresource: &info.subresource,
                namespace: &info.namespace,
                name: &info.name,
                field_selector: query.given("fieldSelector"),
                label_selector: query.given("labelSelector"),
            })
        } else {
            Target::Path(&info.path)
        };
        Self { identity, verb: &info.verb, target }
    }

    /// The same with another verb.
    #[must_use]
    pub fn with_verb<'b>(self, verb: &'b str) -> Attributes<'b>
    where
        'a: 'b,
    {
        Attributes { verb, ..self }
    }

    /// Why it was refused, as Kubernetes words it.
    pub fn refusal(&self) -> String {
        use wherry_machinery::field::go_quote;
        let (user, verb) = (go_quote(&self.identity.user), self.verb);
        match self.target {
            Target::Path(path) => format!("User {user} cannot {verb} path {}", go_quote(path)),
            Target::Resource(target) => {
                let resource = go_quote(&target.combined());
                let group = go_quote(target.group);
                let place = if target.namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace {}", go_quote(target.namespace))
                };
                format!("User {user} cannot {verb} resource {resource} in API group {group} {place}")
            }
        }
    }
}

impl ResourceTarget<'_> {
    /// `resource` or `resource/subresource`.
    pub fn combined(&self) -> std::borrow::Cow<'_, str> {
        if self.subresource.is_empty() {
            self.resource.into()
        } else {
            format!("{}/{}", self.resource, self.subresource).into()
        }
    }
}

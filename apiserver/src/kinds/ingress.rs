//! Ingress and IngressClass.

use k8s_openapi::api::networking::v1::{HTTPIngressPath, IngressBackend, IngressClassSpec, IngressSpec};
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::fields::{dns_label, dns_subdomain, immutable, invalid_each, ip, s};
use super::json::{list, text, typed};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `ingresses`.
pub(crate) struct IngressStrategy;

/// `ingressclasses`.
pub(crate) struct IngressClassStrategy;

/// The annotation that named the class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// How a path matches, in the order in which Kubernetes lists them.
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

impl Strategy for IngressStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "networking.k8s.io",
            version: "v1",
            name: "ingresses",
            kind: "Ingress",
            scope: Scope::Namespaced,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: IngressSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = validate_spec(&spec, &path);
        let annotation = object["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
        if spec.ingress_class_name.is_some() && annotation.is_some() {
            let path = Path::new("annotations").child(CLASS_ANNOTATION);
            let detail = "can not be set when the class field is also set";
            errors.push(Error::invalid(&path, annotation.unwrap_or_default(), detail));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, _old: &Value) -> ErrorList {
        if part == Part::Main {
            return self.validate(facts, object);
        }
        let path = Path::new("status").child("loadBalancer").child("ingress");
        let mut errors = ErrorList::new();
        for (index, point) in list(object, "/status/loadBalancer/ingress").iter().enumerate() {
            let path = path.index(index);
            if let Some(address) = point["ip"].as_str().filter(|address| !address.is_empty()) {
                errors.extend(ip(address, &path.child("ip")));
            }
            if let Some(name) = point["hostname"].as_str().filter(|name| !name.is_empty()) {
                errors.extend(dns_subdomain(name, &path.child("hostname")));
                if name.parse::<std::net::IpAddr>().is_ok() {
                    let detail = "must be a DNS name, not an IP address";
                    errors.push(Error::invalid(&path.child("hostname"), name, detail));
                }
            }
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let has = |object: &Value| object["metadata"]["annotations"][CLASS_ANNOTATION].is_string();
        if has(object) && !old.is_some_and(has) {
            vec![format!(
                "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
            )]
        } else {
            Vec::new()
        }
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let class = object["spec"]["ingressClassName"]
            .as_str()
            .or_else(|| object["metadata"]["annotations"][CLASS_ANNOTATION].as_str())
            .unwrap_or(table::NONE);
        let hosts: Vec<String> = list(object, "/spec/rules")
            .iter()
            .filter_map(|rule| rule["host"].as_str().filter(|host| !host.is_empty()).map(str::to_owned))
            .collect();
        let hosts = if hosts.is_empty() { "*".to_owned() } else { table::with_more(&hosts, 3) };
        let addresses: Vec<&str> = list(object, "/status/loadBalancer/ingress")
            .iter()
            .filter_map(|point| {
                point["ip"].as_str().filter(|ip| !ip.is_empty()).or_else(|| point["hostname"].as_str())
            })
            .collect();
        let ports = if list(object, "/spec/tls").is_empty() { "80" } else { "80, 443" };
        Some(vec![
            table::name(object),
            class.into(),
            hosts.into(),
            addresses.join(",").into(),
            ports.into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

fn validate_spec(spec: &IngressSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(path, Value::Null, detail));
    }
    if let Some(backend) = &spec.default_backend {
        errors.extend(validate_backend(backend, &path.child("defaultBackend")));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        if let Some(host) = rule.host.as_deref().filter(|host| !host.is_empty()) {
            let path = path.child("host");
            if host.parse::<std::net::IpAddr>().is_ok() {
                errors.push(Error::invalid(&path, host, "must be a DNS name, not an IP address"));
            }
            errors.extend(validate_host(host, &path));
        }
        if let Some(http) = &rule.http {
            let path = path.child("http").child("paths");
            if http.paths.is_empty() {
                errors.push(Error::required(&path, ""));
            }
            for (index, route) in http.paths.iter().enumerate() {
                errors.extend(validate_path(route, &path.index(index)));
            }
        }
    }
    for (index, tls) in spec.tls.iter().flatten().enumerate() {
        let path = path.child("tls").index(index);
        for (index, host) in tls.hosts.iter().flatten().enumerate() {
            errors.extend(validate_host(host, &path.child("hosts").index(index)));
        }
        if let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) {
            errors.extend(dns_subdomain(name, &path.child("secretName")));
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        errors.extend(dns_subdomain(class, &path.child("ingressClassName")));
    }
    errors
}

fn validate_host(host: &str, path: &Path) -> ErrorList {
    let problems = if host.contains('*') {
        names::wildcard_dns1123_subdomain(host)
    } else {
        names::dns1123_subdomain(host)
    };
    invalid_each(path, host, problems)
}

fn validate_path(route: &HTTPIngressPath, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let own = s(&route.path);
    let own_path = path.child("path");
    match route.path_type.as_str() {
        "" => return vec![Error::required(&path.child("pathType"), "pathType must be specified")],
        "Exact" | "Prefix" => {
            if !own.starts_with('/') {
                errors.push(Error::invalid(&own_path, own, "must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if own.contains(sequence) {
                    errors.push(Error::invalid(&own_path, own, &format!("must not contain '{sequence}'")));
                }
            }
            for ending in ["/..", "/."] {
                if own.ends_with(ending) {
                    errors.push(Error::invalid(&own_path, own, &format!("cannot end with '{ending}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !own.is_empty() && !own.starts_with('/') {
                errors.push(Error::invalid(&own_path, own, "must be an absolute path"));
            }
        }
        other => errors.push(Error::not_supported(&path.child("pathType"), other, PATH_TYPES)),
    }
    errors.extend(validate_backend(&route.backend, &path.child("backend")));
    errors
}

fn validate_backend(backend: &IngressBackend, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errors.push(Error::invalid(path, "", "resource or service backend is required")),
        (None, Some(resource)) => {
            let path = path.child("resource");
            if resource.kind.is_empty() {
                errors.push(Error::required(&path.child("kind"), ""));
            }
            if resource.name.is_empty() {
                errors.push(Error::required(&path.child("name"), ""));
            }
        }
        (Some(service), None) => {
            let service_path = path.child("service");
            if service.name.is_empty() {
                errors.push(Error::required(&service_path.child("name"), ""));
            } else {
                errors.extend(dns_label(&service.name, &service_path.child("name")));
            }
            let port = service.port.as_ref();
            let (number, name) = (
                port.and_then(|port| port.number).unwrap_or_default(),
                port.map_or("", |port| s(&port.name)),
            );
            match (number != 0, !name.is_empty()) {
                (true, true) => {
                    errors.push(Error::invalid(path, "", "cannot set both port name & port number"));
                }
                (false, false) => errors.push(Error::required(path, "port name or number is required")),
                (false, true) => {
                    let path = service_path.child("port").child("name");
                    errors.extend(invalid_each(&path, name, names::port_name(name)));
                }
                (true, false) => {
                    let path = service_path.child("port").child("number");
                    errors.extend(super::fields::port_number(i64::from(number), &path));
                }
            }
        }
    }
    errors
}

impl Strategy for IngressClassStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "networking.k8s.io",
            version: "v1",
            name: "ingressclasses",
            kind: "IngressClass",
            scope: Scope::Cluster,
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(parameters) =
            object.pointer_mut("/spec/parameters").filter(|parameters| parameters.is_object())
        {
            super::json::default_zero(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: IngressClassSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let controller = s(&spec.controller);
        let mut errors = ErrorList::new();
        if controller.len() > 250 {
            errors.push(Error::too_long(&path.child("controller"), 250));
        }
        errors.extend(domain_prefixed(controller, &path.child("controller")));
        let Some(parameters) = &spec.parameters else { return errors };
        let path = path.child("parameters");
        if parameters.kind.is_empty() {
            errors.push(Error::required(&path.child("kind"), ""));
        }
        if parameters.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        match (s(&parameters.scope), s(&parameters.namespace).is_empty()) {
            ("Namespace", true) => {
                let detail = "`parameters.scope` is set to 'Namespace'";
                errors.push(Error::required(&path.child("namespace"), detail));
            }
            ("Cluster", false) => {
                let detail = "`parameters.scope` is set to 'Cluster'";
                errors.push(Error::forbidden(&path.child("namespace"), detail));
            }
            ("Namespace" | "Cluster", _) => {}
            (other, _) => {
                errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
            }
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        let controller = |object: &Value| object.pointer("/spec/controller").cloned();
        let path = Path::new("spec").child("controller");
        errors.extend(immutable(controller(object).as_ref(), controller(old).as_ref(), &path));
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let parameters = object.pointer("/spec/parameters").filter(|parameters| parameters.is_object());
        let parameters = parameters.map_or_else(
            || table::NONE.to_owned(),
            |parameters| {
                let group = text(parameters, "/apiGroup");
                let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                format!("{}{group}/{}", text(parameters, "/kind"), text(parameters, "/name"))
            },
        );
        Some(vec![
            table::name(object),
            text(object, "/spec/controller").into(),
            parameters.into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

/// A path with a domain before its first slash.
fn domain_prefixed(value: &str, path: &Path) -> ErrorList {
    let Some((domain, rest)) =
        value.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        if value.is_empty() {
            return vec![Error::required(path, "")];
        }
        return vec![Error::invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")")];
    };
    let mut errors = dns_subdomain(domain, path);
    let allowed =
        |character: char| character.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(character);
    if !rest.chars().all(allowed) {
        errors.push(Error::invalid(path, rest, "Invalid path"));
    }
    errors
}

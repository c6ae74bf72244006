//! Which address a Service of type LoadBalancer gets, and what is to be written.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;

use super::addresses::{Addresses, Refused};

/// The class of load balancers that this controller provides, besides those that name none.
pub(super) const CLASS: &str = "wherry.dev/node";
/// Keeps a Service until its load balancer is gone. Source: KEP-980.
pub(super) const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// What is to be done with a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// All is as it should be, or it is not ours.
    Nothing,
    /// It gets this address, in its status and with our finalizer.
    Assign(IpAddr),
    /// There is no address for it, for this reason.
    Pending(String),
    /// It has no load balancer any more: address and finalizer go.
    CleanUp,
}

/// What to do with `service`; an address that it gets is taken from `addresses`, one that it gives up is given back.
pub(super) fn plan(service: &Service, range: Option<IpNet>, addresses: &mut Addresses) -> Plan {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    if !wants_load_balancer(service) {
        addresses.release(uid);
        return if needs_clean_up(service, range) { Plan::CleanUp } else { Plan::Nothing };
    }
    let Some(range) = range else {
        return Plan::Pending(
            "no addresses for load balancers are configured: say --load-balancer-cidr".to_owned(),
        );
    };
    let family = if matches!(range, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    if !families.is_empty() && !families.iter().any(|declared| declared == family) {
        return Plan::Pending(format!(
            "the Service has no {family} address, and --load-balancer-cidr {range} has no other"
        ));
    }
    let asked = match asked_for(service) {
        Ok(asked) => asked,
        Err(text) => return Plan::Pending(format!("spec.loadBalancerIP {text:?} is not an IP address")),
    };
    match addresses.take(uid, asked, range) {
        Ok(address) if is_assigned(service, address) => Plan::Nothing,
        Ok(address) => Plan::Assign(address),
        Err(refused) => Plan::Pending(match (refused, asked) {
            (Refused::OutOfRange, Some(ip)) => {
                format!("spec.loadBalancerIP {ip} is not in --load-balancer-cidr {range}")
            }
            (Refused::Taken, Some(ip)) => format!("spec.loadBalancerIP {ip} belongs to another Service"),
            _ => format!("--load-balancer-cidr {range} has no free address left"),
        }),
    }
}

/// Whether the Service is of the type, and of this controller's class.
pub(super) fn wants_load_balancer(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    service.metadata.deletion_timestamp.is_none()
        && spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS)
}

/// Whether the finalizer is there and ours to remove: another controller's load balancer has another class, or, once the
/// type has changed and the class is gone with it, addresses that are not ours.
fn needs_clean_up(service: &Service, range: Option<IpNet>) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    let mut addresses = ingress_addresses(service);
    has_finalizer(service)
        && class.is_none_or(|class| class == CLASS)
        && addresses.all(|ip| range.is_none_or(|range| range.contains(&ip)))
}

pub(super) fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// The addresses in the Service's status.
pub(super) fn ingress_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

fn asked_for(service: &Service) -> Result<Option<IpAddr>, &str> {
    let text = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    text.filter(|text| !text.is_empty()).map(|text| text.parse().map_err(|_| text)).transpose()
}

fn is_assigned(service: &Service, address: IpAddr) -> bool {
    has_finalizer(service) && ingress_addresses(service).eq([address])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(uid: &str, spec: serde_json::Value, ip: Option<&str>, finalizer: bool) -> Service {
        let ingress: Vec<_> = ip.iter().map(|ip| serde_json::json!({"ip": ip, "ipMode": "VIP"})).collect();
        let finalizers: Vec<&str> = finalizer.then_some(FINALIZER).into_iter().collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": uid, "namespace": "ns", "uid": uid, "finalizers": finalizers},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    fn range() -> Option<IpNet> {
        Some("10.7.0.0/29".parse().unwrap())
    }

    #[test]
    fn a_load_balancer_gets_an_address_and_keeps_it() {
        let balancer = serde_json::json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"]});
        let mut addresses = Addresses::default();
        let assigned = |ip: &str| Plan::Assign(ip.parse().unwrap());
        let new = |uid| service(uid, balancer.clone(), None, false);
        assert_eq!(plan(&new("a"), range(), &mut addresses), assigned("10.7.0.1"));
        // Planned again before the status is seen: the same address.
        assert_eq!(plan(&new("a"), range(), &mut addresses), assigned("10.7.0.1"));
        assert_eq!(plan(&new("b"), range(), &mut addresses), assigned("10.7.0.2"));
        let done = service("a", balancer.clone(), Some("10.7.0.1"), true);
        assert_eq!(plan(&done, range(), &mut addresses), Plan::Nothing);
        // What somebody else has written to the status is put right.
        let wrong = service("a", balancer.clone(), Some("10.9.9.9"), true);
        assert_eq!(plan(&wrong, range(), &mut addresses), assigned("10.7.0.1"));
        let class = serde_json::json!({"type": "LoadBalancer", "loadBalancerClass": CLASS});
        assert_eq!(plan(&service("c", class, None, false), range(), &mut addresses), assigned("10.7.0.3"));
        let other = serde_json::json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x"});
        assert_eq!(plan(&service("d", other, None, false), range(), &mut addresses), Plan::Nothing);
    }

    #[test]
    fn a_wish_is_granted_when_the_address_is_free() {
        let wish = |ip: &str| serde_json::json!({"type": "LoadBalancer", "loadBalancerIP": ip});
        let mut addresses = Addresses::default();
        let mut planned = |uid: &str, ip: &str, has: Option<&str>| {
            plan(&service(uid, wish(ip), has, has.is_some()), range(), &mut addresses)
        };
        let pending = |plan: Plan, words: &str| match plan {
            Plan::Pending(reason) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(planned("a", "10.7.0.5", None), Plan::Assign("10.7.0.5".parse().unwrap()));
        pending(planned("b", "10.7.0.5", None), "belongs to another Service");
        pending(planned("b", "10.8.0.5", None), "is not in --load-balancer-cidr 10.7.0.0/29");
        pending(planned("b", "ten", None), "is not an IP address");
        // A new wish moves the Service, and its former address is free.
        assert_eq!(planned("a", "10.7.0.6", Some("10.7.0.5")), Plan::Assign("10.7.0.6".parse().unwrap()));
        assert_eq!(planned("b", "10.7.0.5", None), Plan::Assign("10.7.0.5".parse().unwrap()));
    }

    #[test]
    fn without_addresses_it_is_pending_and_the_reason_says_what_to_set() {
        let balancer = service("a", serde_json::json!({"type": "LoadBalancer"}), None, false);
        let mut addresses = Addresses::default();
        let Plan::Pending(reason) = plan(&balancer, None, &mut addresses) else { panic!("not pending") };
        assert!(reason.contains("--load-balancer-cidr"), "{reason}");
        let tiny: IpNet = "10.7.0.1/32".parse().unwrap();
        assert_eq!(plan(&balancer, Some(tiny), &mut addresses), Plan::Assign("10.7.0.1".parse().unwrap()));
        let next = service("b", serde_json::json!({"type": "LoadBalancer"}), None, false);
        let Plan::Pending(reason) = plan(&next, Some(tiny), &mut addresses) else { panic!("not pending") };
        assert!(reason.contains("no free address"), "{reason}");
        let six = serde_json::json!({"type": "LoadBalancer", "ipFamilies": ["IPv6"]});
        let Plan::Pending(reason) = plan(&service("c", six, None, false), range(), &mut addresses) else {
            panic!("not pending")
        };
        assert!(reason.contains("no IPv4 address"), "{reason}");
    }

    #[test]
    fn an_address_is_given_back_when_the_service_goes_or_becomes_another_type() {
        let mut addresses = Addresses::default();
        let one: Option<IpNet> = Some("10.7.0.1/32".parse().unwrap());
        let balancer = serde_json::json!({"type": "LoadBalancer"});
        let cluster = serde_json::json!({"type": "ClusterIP"});
        assert!(matches!(
            plan(&service("a", balancer.clone(), None, false), one, &mut addresses),
            Plan::Assign(_)
        ));
        let mut deleted = service("a", balancer.clone(), Some("10.7.0.1"), true);
        deleted.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
        assert_eq!(plan(&deleted, one, &mut addresses), Plan::CleanUp);
        assert!(matches!(plan(&service("b", balancer, None, false), one, &mut addresses), Plan::Assign(_)));
        for (service, expected) in [
            (service("b", cluster.clone(), None, true), Plan::CleanUp),
            (service("b", cluster.clone(), Some("10.7.0.1"), true), Plan::CleanUp),
            (service("b", cluster.clone(), None, false), Plan::Nothing),
            // Another controller's, which has not cleaned up yet.
            (service("b", cluster, Some("192.0.2.1"), true), Plan::Nothing),
        ] {
            assert_eq!(plan(&service, one, &mut addresses), expected, "{service:?}");
        }
    }
}

//! Services and EndpointSlices, and the rules computed from them.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use wherry_proxy::rules::{NodeInfo, Planner, Ruleset, compute};

/// Objects that make a ruleset; a Service's slices have its name.
#[derive(Default, Clone)]
pub(crate) struct Objects {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Objects {
    /// A Service of this `spec`; each slice is `ports` and `endpoints`.
    pub(crate) fn with(mut self, name: &str, spec: &str, slices: &[(&str, &str)]) -> Self {
        self.services.retain(|service| service.metadata.name.as_deref() != Some(name));
        self.slices.retain(|slice| !slice.metadata.name.as_deref().unwrap().starts_with(&format!("{name}-")));
        self.push(name, spec, slices);
        self
    }

    /// The same, of a name that is new.
    pub(crate) fn add(mut self, name: &str, spec: &str, ports: &str, endpoints: &str) -> Self {
        self.push(name, spec, &[(ports, endpoints)]);
        self
    }

    fn push(&mut self, name: &str, spec: &str, slices: &[(&str, &str)]) {
        let service = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"default"}},"spec":{spec},
                "status":{{"loadBalancer":{{"ingress":[{{"ip":"198.51.100.1"}}]}}}}}}"#
        );
        self.services.push(Arc::new(serde_json::from_str(&service).unwrap()));
        for (index, (ports, endpoints)) in slices.iter().enumerate() {
            let slice = format!(
                r#"{{"addressType":"IPv4","ports":{ports},"endpoints":{endpoints},"metadata":{{"name":"{name}-{index}","namespace":"default",
                    "labels":{{"kubernetes.io/service-name":"{name}"}}}}}}"#
            );
            self.slices.push(Arc::new(serde_json::from_str(&slice).unwrap()));
        }
    }

    pub(crate) fn ruleset(&self) -> Arc<Ruleset> {
        Arc::new(compute(&self.services, &self.slices, &node()))
    }

    /// The same by somebody who remembers, as the proxy does.
    pub(crate) fn plan(&self, planner: &mut Planner) -> Arc<Ruleset> {
        Arc::new(planner.plan(&self.services, &self.slices, &node()))
    }
}

fn node() -> NodeInfo {
    NodeInfo { name: "n1".to_owned(), zone: None }
}

//! Under which names servers are reached and clients are known.

use std::net::IpAddr;

use super::Error;

/// Under which names and addresses the API server is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServingNames {
    /// The machine's host name.
    pub host_name: Option<String>,
    /// Where the server listens.
    pub listen_address: Option<IpAddr>,
    /// The `kubernetes` Service's address: the first of the Service range.
    pub service_ip: Option<IpAddr>,
    /// Further names and addresses.
    pub additional: Vec<String>,
}

impl ServingNames {
    /// Every subject alternative name, each once, loopback and the `kubernetes` Service included.
    pub(super) fn all(&self) -> Vec<String> {
        let fixed = [
            "localhost",
            "127.0.0.1",
            "::1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let mut names: Vec<String> = fixed.iter().map(|&name| name.to_owned()).collect();
        let more = self
            .host_name
            .iter()
            .filter(|name| is_certifiable(name))
            .cloned()
            .chain(self.listen_address.iter().filter(|ip| !ip.is_unspecified()).map(ToString::to_string))
            .chain(self.service_ip.iter().map(ToString::to_string))
            .chain(self.additional.iter().cloned());
        for name in more {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// Whether a host name can stand in a certificate; a machine's name may hold what DNS does not.
fn is_certifiable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Node names stand in file names and in user names.
pub(super) fn check_node_name(name: &str) -> Result<(), Error> {
    if wherry_machinery::names::dns1123_subdomain(name).is_empty() {
        Ok(())
    } else {
        Err(Error::NodeName { name: name.to_owned() })
    }
}

/// Whom a client certificate makes known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdentity {
    /// `kubernetes-admin` in `system:masters`: whoever holds the data directory.
    Admin,
    /// `system:kube-scheduler`.
    Scheduler,
    /// `system:kube-controller-manager`.
    Controllers,
    /// `system:kube-proxy`.
    Proxy,
    /// `system:kube-dns`.
    Dns,
    /// The API server when it calls a kubelet.
    ApiServerKubeletClient,
    /// `system:node:<name>` in `system:nodes`.
    Kubelet {
        /// The node's name.
        node_name: String,
    },
}

impl ClientIdentity {
    /// The user name: the certificate's common name.
    pub fn user(&self) -> String {
        match self {
            Self::Admin => "kubernetes-admin".to_owned(),
            Self::Scheduler => "system:kube-scheduler".to_owned(),
            Self::Controllers => "system:kube-controller-manager".to_owned(),
            Self::Proxy => "system:kube-proxy".to_owned(),
            Self::Dns => "system:kube-dns".to_owned(),
            Self::ApiServerKubeletClient => "kube-apiserver-kubelet-client".to_owned(),
            Self::Kubelet { node_name } => format!("system:node:{node_name}"),
        }
    }

    /// The group, if there is one: the certificate's organization.
    pub fn group(&self) -> Option<&'static str> {
        match self {
            Self::Admin | Self::ApiServerKubeletClient => Some("system:masters"),
            Self::Kubelet { .. } => Some("system:nodes"),
            Self::Scheduler | Self::Controllers | Self::Proxy | Self::Dns => None,
        }
    }

    /// The identity that the API server makes of such a certificate, for components in the same process.
    pub fn identity(&self) -> crate::identity::Identity {
        crate::identity::Identity::new(self.user(), self.group())
    }

    pub(super) fn file_name(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::Scheduler => "scheduler".to_owned(),
            Self::Controllers => "controller-manager".to_owned(),
            Self::Proxy => "proxy".to_owned(),
            Self::Dns => "dns".to_owned(),
            Self::ApiServerKubeletClient => "apiserver-kubelet-client".to_owned(),
            Self::Kubelet { node_name } => format!("kubelet-{node_name}"),
        }
    }
}

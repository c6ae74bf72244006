//! The cluster's own certificate authority, made at first start, and what it certifies.
//!
//! Called by the binary (which writes kubeconfigs) and by `server` (which serves with the certificate and accepts those of
//! clients). Files lie in `<data-dir>/pki`; keys are readable by their owner only.
//!
//! Invariants: a file is replaced whole or not at all; a certificate is made again when its names change, when its authority
//! changed, and thirty days before it ends.

mod authority;
mod credential;
mod error;
mod file;
mod kubeconfig;
mod names;

use std::path::{Path, PathBuf};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use time::OffsetDateTime;

pub use authority::Authority;
pub use credential::Credential;
pub use error::Error;
pub use names::{ClientIdentity, ServingNames};

use credential::Wanted;

/// The authority, the service-account signing key and every certificate made so far.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    authority: Authority,
    service_account_key_pem: String,
}

impl Pki {
    /// Opens `directory`, and makes the authority and the signing key if they are not there.
    ///
    /// # Errors
    /// A file cannot be read or written, or does not hold what its name says.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        file::create_private_directory(directory)?;
        let authority = Authority::open(directory, OffsetDateTime::now_utc())?;
        let service_account_key_pem = match file::read(&directory.join("sa.key"))? {
            Some(pem) => pem,
            None => {
                let key = KeyPair::generate()
                    .map_err(|source| Error::Certificate { name: "sa".to_owned(), source })?;
                file::write(
                    &directory.join("sa.pub"),
                    key.public_key_pem().as_bytes(),
                    file::Access::Everyone,
                )?;
                let pem = key.serialize_pem();
                file::write(&directory.join("sa.key"), pem.as_bytes(), file::Access::Owner)?;
                pem
            }
        };
        Ok(Self { directory: directory.to_owned(), authority, service_account_key_pem })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// The key that signs service-account tokens, as PKCS #8 PEM.
    pub fn service_account_key_pem(&self) -> &str {
        &self.service_account_key_pem
    }

    /// The certificate that the API server serves with.
    ///
    /// # Errors
    /// As for [`Pki::open`].
    pub fn serving(&self, names: &ServingNames) -> Result<Credential, Error> {
        self.credential(&Wanted {
            file_name: "apiserver".to_owned(),
            common_name: "kube-apiserver".to_owned(),
            organization: None,
            names: names.all(),
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        })
    }

    /// The certificate that a node's kubelet serves with; `names` are its host name and addresses.
    ///
    /// # Errors
    /// As for [`Pki::open`].
    pub fn kubelet_serving(&self, node_name: &str, names: &[String]) -> Result<Credential, Error> {
        names::check_node_name(node_name)?;
        let mut all = vec![node_name.to_owned()];
        all.extend(names.iter().filter(|name| *name != node_name).cloned());
        self.credential(&Wanted {
            file_name: format!("kubelet-serving-{node_name}"),
            common_name: format!("system:node:{node_name}"),
            organization: Some("system:nodes".to_owned()),
            names: all,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        })
    }

    /// The certificate by which a client is known.
    ///
    /// # Errors
    /// As for [`Pki::open`].
    pub fn client(&self, identity: &ClientIdentity) -> Result<Credential, Error> {
        if let ClientIdentity::Kubelet { node_name } = identity {
            names::check_node_name(node_name)?;
        }
        self.credential(&Wanted {
            file_name: identity.file_name(),
            common_name: identity.user(),
            organization: identity.group().map(str::to_owned),
            names: Vec::new(),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
        })
    }

    /// A kubeconfig with which `kubectl` reaches `server_url` as `identity`, everything inline.
    ///
    /// # Errors
    /// As for [`Pki::open`].
    pub fn kubeconfig(&self, server_url: &str, identity: &ClientIdentity) -> Result<String, Error> {
        let credential = self.client(identity)?;
        Ok(kubeconfig::kubeconfig(server_url, &identity.user(), self.ca_pem(), &credential))
    }

    /// Writes a kubeconfig as [`Pki::kubeconfig`] makes it, readable by its owner only.
    ///
    /// # Errors
    /// As for [`Pki::open`].
    pub fn write_kubeconfig(
        &self,
        path: &Path,
        server_url: &str,
        identity: &ClientIdentity,
    ) -> Result<(), Error> {
        file::write(path, self.kubeconfig(server_url, identity)?.as_bytes(), file::Access::Owner)
    }

    fn credential(&self, wanted: &Wanted) -> Result<Credential, Error> {
        credential::load_or_make(&self.directory, &self.authority, wanted, OffsetDateTime::now_utc())
    }
}

#[cfg(test)]
mod tests;

//! The certificate authority.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::{Error, file};

/// Ten years, as kubeadm's authority.
const CA_LIFETIME: Duration = Duration::days(3650);
/// Clocks of machines that start together differ.
pub(super) const CLOCK_SKEW: Duration = Duration::minutes(5);

/// A key and certificate that sign other certificates.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads `ca.crt` and `ca.key`, or makes them.
    pub(super) fn open(directory: &Path, now: OffsetDateTime) -> Result<Self, Error> {
        let (crt, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        if let (Some(certificate_pem), Some(key_pem)) = (file::read(&crt)?, file::read(&key)?) {
            let key_pair = KeyPair::from_pem(&key_pem)
                .map_err(|_| Error::Malformed { path: key, what: "private key" })?;
            let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key_pair)
                .map_err(|_| Error::Malformed { path: crt, what: "certificate" })?;
            return Ok(Self { certificate_pem, issuer });
        }
        let failed = |source| Error::Certificate { name: "ca".to_owned(), source };
        let key_pair = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        // The time keeps authorities of different data directories apart, so that a certificate tells which one made it.
        name.push(DnType::CommonName, format!("wherry-ca@{}", now.unix_timestamp_nanos() / 1_000_000));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + CA_LIFETIME;
        let certificate_pem = params.self_signed(&key_pair).map_err(failed)?.pem();
        file::write(&key, key_pair.serialize_pem().as_bytes(), file::Access::Owner)?;
        file::write(&crt, certificate_pem.as_bytes(), file::Access::Everyone)?;
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key_pair) })
    }

    /// The authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

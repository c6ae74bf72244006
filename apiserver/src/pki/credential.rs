//! A certificate with its key, kept in two files and made again when it no longer fits.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::authority::CLOCK_SKEW;
use super::{Authority, Error, file};

/// One year, as kubeadm's certificates.
const LIFETIME: Duration = Duration::days(365);
/// A certificate is made again when it has less than this left.
const RENEW_BEFORE: Duration = Duration::days(30);

/// A certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
}

/// What a certificate should say.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) file_name: String,
    pub(super) common_name: String,
    /// The one group; rcgen's names hold one value per attribute.
    pub(super) organization: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
}

/// The credential in the directory if it still fits, else a new one.
pub(super) fn load_or_make(
    directory: &Path,
    authority: &Authority,
    wanted: &Wanted,
    now: OffsetDateTime,
) -> Result<Credential, Error> {
    let crt = directory.join(format!("{}.crt", wanted.file_name));
    let key = directory.join(format!("{}.key", wanted.file_name));
    if let (Some(certificate_pem), Some(key_pem)) = (file::read(&crt)?, file::read(&key)?)
        && fits(&certificate_pem, &key_pem, authority, wanted, now)
    {
        return Ok(Credential { certificate_pem, key_pem });
    }
    let made = make(authority, wanted, now)
        .map_err(|source| Error::Certificate { name: wanted.file_name.clone(), source })?;
    file::write(&key, made.key_pem.as_bytes(), file::Access::Owner)?;
    file::write(&crt, made.certificate_pem.as_bytes(), file::Access::Everyone)?;
    Ok(made)
}

fn make(authority: &Authority, wanted: &Wanted, now: OffsetDateTime) -> Result<Credential, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(wanted.names.clone())?;
    let mut name = DistinguishedName::new();
    if let Some(organization) = &wanted.organization {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, wanted.common_name.as_str());
    params.distinguished_name = name;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages.clone_from(&wanted.usages);
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + LIFETIME;
    let certificate = params.signed_by(&key, authority.issuer())?;
    Ok(Credential { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Whether a kept certificate says what is wanted, is of this authority and key, and lasts long enough.
fn fits(
    certificate_pem: &str,
    key_pem: &str,
    authority: &Authority,
    wanted: &Wanted,
    now: OffsetDateTime,
) -> bool {
    let (Ok((_, pem)), Ok((_, ca_pem)), Ok(key)) = (
        parse_x509_pem(certificate_pem.as_bytes()),
        parse_x509_pem(authority.certificate_pem().as_bytes()),
        KeyPair::from_pem(key_pem),
    ) else {
        return false;
    };
    let (Ok(certificate), Ok(ca)) = (pem.parse_x509(), ca_pem.parse_x509()) else { return false };
    let mut names = BTreeSet::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.insert((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    names.insert(address(bytes).map(|ip| ip.to_string()).unwrap_or_default())
                }
                _ => names.insert(String::new()),
            };
        }
    }
    let wanted_names: BTreeSet<String> = wanted.names.iter().cloned().collect();
    let organizations: Vec<&str> =
        certificate.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let common_names: Vec<&str> =
        certificate.subject().iter_common_name().filter_map(|n| n.as_str().ok()).collect();
    names == wanted_names
        && organizations == wanted.organization.iter().map(String::as_str).collect::<Vec<_>>()
        && common_names == [wanted.common_name.as_str()]
        && certificate.issuer() == ca.subject()
        && certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
        && certificate.validity().not_after.timestamp() - now.unix_timestamp() > RENEW_BEFORE.whole_seconds()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Wanted {
        Wanted {
            file_name: "x".to_owned(),
            common_name: "x".to_owned(),
            organization: Some("a".to_owned()),
            names: names.iter().map(|&n| n.to_owned()).collect(),
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        }
    }

    #[test]
    fn a_certificate_is_kept_until_its_names_its_authority_or_its_time_run_out() {
        let now = OffsetDateTime::now_utc();
        let directory = std::env::temp_dir().join(format!("wherry-credential-{}", std::process::id()));
        file::create_private_directory(&directory).unwrap();
        let authority = Authority::open(&directory, now).unwrap();
        let names = ["localhost", "127.0.0.1", "::1"];
        let first = load_or_make(&directory, &authority, &wanted(&names), now).unwrap();
        let again = |wanted: &Wanted, now| load_or_make(&directory, &authority, wanted, now).unwrap();
        assert_eq!(first, again(&wanted(&names), now));
        assert_eq!(first, again(&wanted(&names), now + Duration::days(334)));
        let renewed = again(&wanted(&names), now + Duration::days(336));
        assert_ne!(first, renewed);
        assert_eq!(renewed, again(&wanted(&names), now));
        assert_ne!(renewed, again(&wanted(&names[..2]), now));
        let last = again(&wanted(&names), now);
        std::fs::remove_file(directory.join("ca.key")).unwrap();
        let other = Authority::open(&directory, now + Duration::seconds(1)).unwrap();
        assert_ne!(last, load_or_make(&directory, &other, &wanted(&names), now).unwrap());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

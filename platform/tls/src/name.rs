//! Names of processes: what a certificate says in its one URI, `spiffe://DOMAIN/NAME`.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The short name of a process as its certificate has it, such as `ordering`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Arc<str>);

impl Name {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a certificate names nobody that is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no certificate.
    #[error("the certificate is malformed")]
    Malformed,
    /// It has no URI among its names.
    #[error("the certificate has no SPIFFE id")]
    Nameless,
    /// It has several, and none of them is the one.
    #[error("the certificate has several URIs")]
    Ambiguous,
    /// Its URI is no service's of this trust domain.
    #[error("the certificate is of {0:?}, which is no process of this trust domain")]
    Foreign(String),
    /// It is somebody else's than it has to be.
    #[error("the certificate is that of {found}, and {wanted} was meant")]
    Another {
        /// Whose it is.
        found: Name,
        /// Who was meant.
        wanted: String,
    },
}

/// Longest domain or name, as DNS bounds its labels and names.
const LONGEST: usize = 255;

/// The SPIFFE id of a process.
pub fn id(domain: &str, name: &str) -> String {
    format!("spiffe://{domain}/{name}")
}

/// Whether this can be a trust domain: lower case letters, digits, dots, dashes and underscores.
pub(crate) fn is_domain(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(fits)
}

/// Whether this can be a name: lower case letters, digits and dashes.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(fits)
}

/// The only URI of a certificate.
pub(crate) fn only_uri(certificate: &CertificateDer<'_>) -> Result<String, Refused> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|_| Refused::Malformed)?;
    let mut uris = parsed.valid_uri_names();
    match (uris.next(), uris.next()) {
        (None, _) => Err(Refused::Nameless),
        (Some(uri), None) => Ok(uri.to_owned()),
        (Some(_), Some(_)) => Err(Refused::Ambiguous),
    }
}

/// Who a certificate says it is of, if that is a process of this domain. Whether the certificate is to be believed is not
/// asked here.
pub(crate) fn of(certificate: &CertificateDer<'_>, domain: &str) -> Result<Name, Refused> {
    let uri = only_uri(certificate)?;
    let own = uri.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(domain));
    match own.and_then(|path| path.strip_prefix('/')) {
        Some(name) if is_name(name) => Ok(Name(name.into())),
        Some(_) | None => Err(Refused::Foreign(uri)),
    }
}

/// The same, if it is this one.
pub(crate) fn expect(certificate: &CertificateDer<'_>, domain: &str, wanted: &str) -> Result<Name, Refused> {
    let found = of(certificate, domain)?;
    if found.as_str() == wanted { Ok(found) } else { Err(Refused::Another { found, wanted: wanted.to_owned() }) }
}

//! An authority for development: makes itself, and certificates for the processes of a fleet, in one folder.
//!
//! The folder holds `authority.pem` and `authority.key`, and for each process `NAME.pem` and `NAME.key`, all readable by their
//! owner alone. Who signs in production (cert-manager, SPIRE, Vault) writes the same files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};

use crate::name::{self, id};

/// Why no certificate is made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is one already.
    #[error("{} holds an authority already; `stoa ca issue` makes certificates by it", .0.display())]
    Exists(PathBuf),
    /// There is none yet.
    #[error("{} holds no authority: make one with `stoa ca init`", .0.display())]
    Missing(PathBuf),
    /// What is there was not made here.
    #[error("{} is no authority made by `stoa ca init`: {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A name or a domain is none.
    #[error(transparent)]
    Name(#[from] crate::Error),
    /// The library refused.
    #[error("no certificate can be made")]
    Make(#[from] rcgen::Error),
}

/// Before the clocks of the machines that agree least.
const SLACK: Duration = Duration::from_secs(5 * 60);

/// An authority in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    domain: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority for a trust domain, valid for this long, in a folder that has none.
    pub fn init(folder: &Path, domain: &str, valid: Duration) -> Result<Self, Error> {
        if !name::is_domain(domain) {
            return Err(crate::Error::Domain(domain.to_owned()).into());
        }
        let certificate = folder.join("authority.pem");
        if certificate.exists() {
            return Err(Error::Exists(folder.to_owned()));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Error::File { path: folder.to_owned(), source })?;
        let key = KeyPair::generate()?;
        let params = params(domain, valid)?;
        write_private(&folder.join("authority.key"), &key.serialize_pem())?;
        write_private(&certificate, &params.self_signed(&key)?.pem())?;
        Ok(Authority { folder: folder.to_owned(), domain: domain.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// The authority of a folder.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (path, key) = (folder.join("authority.pem"), folder.join("authority.key"));
        if !path.exists() {
            return Err(Error::Missing(folder.to_owned()));
        }
        let unfit = |path: &Path, problem: String| Error::Unfit { path: path.to_owned(), problem };
        let read =
            |path: &Path| fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source });
        let certificate =
            CertificateDer::from_pem_slice(read(&path)?.as_bytes()).map_err(|error| unfit(&path, error.to_string()))?;
        let uri = name::only_uri(&certificate).map_err(|error| unfit(&path, error.to_string()))?;
        let Some(domain) = uri.strip_prefix("spiffe://").filter(|domain| name::is_domain(domain)) else {
            return Err(unfit(&path, format!("{uri} is no trust domain")));
        };
        let pair = KeyPair::from_pem(&read(&key)?).map_err(|error| unfit(&key, error.to_string()))?;
        // What is signed with depends on the name and the key alone, so the rest need not be read back.
        let issuer = Issuer::new(params(domain, Duration::ZERO)?, pair);
        Ok(Authority { folder: folder.to_owned(), domain: domain.to_owned(), issuer })
    }

    /// Makes a key and a certificate for a process, valid for this long, in place of those it had. Answers where the
    /// certificate is.
    pub fn issue(&self, service: &str, valid: Duration) -> Result<PathBuf, Error> {
        if !name::is_name(service) || service == "authority" {
            return Err(crate::Error::Name(service.to_owned()).into());
        }
        let key = KeyPair::generate()?;
        let certificate = leaf(&self.domain, service, valid)?.signed_by(&key, &self.issuer)?;
        let path = self.folder.join(format!("{service}.pem"));
        write_private(&self.folder.join(format!("{service}.key")), &key.serialize_pem())?;
        write_private(&path, &certificate.pem())?;
        Ok(path)
    }

    /// What signs, for certificates that are made otherwise.
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// What the ids begin with.
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

/// What a process's certificate says: its id, and that it may begin and answer connections.
pub fn leaf(domain: &str, service: &str, valid: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = within(valid);
    params.distinguished_name = called(service);
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id(domain, service))?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(domain: &str, valid: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = within(valid);
    params.distinguished_name = called(domain);
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(format!("spiffe://{domain}"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn within(valid: Duration) -> CertificateParams {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(UnixTime::now().as_secs());
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (now - SLACK, now + valid);
    params
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::OrganizationName, "Stoa");
    called.push(DnType::CommonName, name);
    called
}

/// Writes a file whole or not at all, for its owner alone.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let wrong = |source| Error::File { path: path.to_owned(), source };
    let draft = PathBuf::from(format!("{}.new", path.display()));
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft).map_err(wrong)?;
    file.write_all(text.as_bytes()).map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    fs::rename(&draft, path).map_err(wrong)
}

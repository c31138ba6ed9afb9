//! The sandbox: servers that run inside this process, on loopback, for `demo` and for tests. They
//! behave as the real ones do where it matters to us, and misbehave on request.

pub mod gmail;
pub mod graph;
pub mod oauth;
pub mod smtp;
pub mod web;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;

/// The names a sandbox server goes by.
pub const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why a sandbox server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A certificate could not be made.
    #[error("cannot make a certificate for the sandbox: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate could not be used.
    #[error("cannot use the sandbox's certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// No port could be had.
    #[error("cannot listen on 127.0.0.1: {0}")]
    Listen(#[from] std::io::Error),
}

/// A certificate authority that nobody trusts unless told to; made anew each time.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// Makes one.
    pub fn new() -> Result<Authority, SandboxError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "tidings sandbox authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Authority { issuer })
    }

    /// Its own certificate, for a `ca_file`.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's configuration with a certificate for [`NAMES`], valid now.
    pub fn server(&self) -> Result<Arc<ServerConfig>, SandboxError> {
        self.server_for(&NAMES, 2000..=2100)
    }

    /// The same for other names, valid from the first of the years to the end of the last.
    pub fn server_for(
        &self,
        names: &[&str],
        years: std::ops::RangeInclusive<i32>,
    ) -> Result<Arc<ServerConfig>, SandboxError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.not_before = rcgen::date_time_ymd(*years.start(), 1, 1);
        params.not_after = rcgen::date_time_ymd(*years.end(), 12, 31);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.issuer.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

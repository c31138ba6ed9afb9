//! Certificates that prove who we are, as far as we must understand them: the fingerprint that goes
//! into an assertion's header, from when until when it is good, and whether a key is its own. Its
//! signature is for the provider to check, which knows the certificate already.

use crate::certificate;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    from: Timestamp,
    until: Timestamp,
    key: Vec<u8>,
}

impl Certificate {
    /// The first certificate of a PEM text. The error says what is wrong with the text.
    pub fn read(pem: &str) -> Result<Certificate, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
            if looks_binary(pem) {
                "it is no PEM file; turn a .pfx or .p12 into one: openssl pkcs12 -in FILE -nodes -out FILE.pem"
                    .to_owned()
            } else {
                "there is no CERTIFICATE block in it".to_owned()
            }
        })?;
        Certificate::of(der.as_ref()).ok_or_else(|| "its certificate cannot be read".to_owned())
    }

    fn of(der: &[u8]) -> Option<Certificate> {
        let read = certificate::read(der)?;
        Some(Certificate {
            der: der.to_vec(),
            from: read.not_before,
            until: read.not_after,
            key: read.key,
        })
    }

    /// `x5t#S256` (RFC 7515 4.1.8).
    pub fn sha256(&self) -> String {
        BASE64.encode(ring::digest::digest(&ring::digest::SHA256, &self.der))
    }

    /// `x5t` (RFC 7515 4.1.7), which older servers look for.
    pub fn sha1(&self) -> String {
        let algorithm = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
        BASE64.encode(ring::digest::digest(algorithm, &self.der))
    }

    /// From when it is good.
    pub fn from(&self) -> Timestamp {
        self.from
    }

    /// When it ends.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// The public key in it, as PKCS#1 has it for RSA.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

fn looks_binary(text: &str) -> bool {
    !text.contains("-----BEGIN")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(years: (i32, i32)) -> (String, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["tidings".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 12, 31);
        (params.self_signed(&key).unwrap().pem(), key)
    }

    #[test]
    fn dates_and_key_are_read_on_both_sides_of_2050() {
        let (pem, key) = made((2026, 2051));
        let certificate = Certificate::read(&pem).unwrap();
        assert_eq!(certificate.from().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(certificate.until().to_string(), "2051-12-31T00:00:00Z");
        assert_eq!(certificate.key(), key.public_key_raw());
        assert_eq!(certificate.sha256().len(), 43);
    }

    #[test]
    fn what_is_no_certificate_says_so_and_names_the_way_from_a_pfx() {
        assert!(Certificate::read("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n").is_err());
        assert!(
            Certificate::read("0\u{1}binary")
                .unwrap_err()
                .contains("openssl pkcs12")
        );
        let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert!(Certificate::read(garbage).is_err());
    }

    #[test]
    fn no_cut_certificate_is_read_beyond_its_end() {
        let (pem, _) = made((2026, 2030));
        let whole = Certificate::read(&pem).unwrap();
        for end in 0..whole.der.len() {
            assert_eq!(Certificate::of(&whole.der[..end]), None);
        }
    }
}

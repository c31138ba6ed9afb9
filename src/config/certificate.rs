//! Certificates that prove who we are, as far as we must understand them: the fingerprint that goes
//! into an assertion's header, from when until when it is good, and whether a key is its own.
//!
//! X.509 is read by hand down to the few fields that are wanted (RFC 5280 4.1); its signature is for
//! the provider to check, which knows the certificate already.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The explicit tag of the version.
const VERSION: u8 = 0xa0;

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
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (mut body, _) = expect(certificate, SEQUENCE)?;
        if let Some((_, rest)) = expect(body, VERSION) {
            body = rest;
        }
        let (_, body) = expect(body, INTEGER)?;
        let (_, body) = expect(body, SEQUENCE)?;
        let (_, body) = expect(body, SEQUENCE)?;
        let (validity, body) = expect(body, SEQUENCE)?;
        let (_, body) = expect(body, SEQUENCE)?;
        let (key, _) = expect(body, SEQUENCE)?;
        let (from, validity) = time(validity)?;
        let (until, _) = time(validity)?;
        let (_, key) = expect(key, SEQUENCE)?;
        let (key, _) = expect(key, BIT_STRING)?;
        // The first byte counts unused bits: none in a key.
        let (0, key) = key.split_first().map(|(unused, key)| (*unused, key))? else {
            return None;
        };
        Some(Certificate {
            der: der.to_vec(),
            from,
            until,
            key: key.to_vec(),
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

/// One element of that tag: its content, and what follows it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and rest (X.690 8.1; lengths up to 2^32).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let bytes = usize::from(first & 0x7f);
        if bytes == 0 || bytes > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(bytes)?;
        length = digits
            .iter()
            .fold(0, |length, digit| (length << 8) | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` before 2050, `YYYYMMDDHHMMSSZ` from then on (RFC 5280 4.1.2.5).
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, content, rest) = element(der)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let text = match tag {
        UTC_TIME => {
            let year: u8 = text.get(..2)?.parse().ok()?;
            format!("{}{text}", if year < 50 { "20" } else { "19" })
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", &text).ok()?;
    Some((time.to_zoned(TimeZone::UTC).ok()?.timestamp(), rest))
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

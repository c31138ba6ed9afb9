//! What a certificate says of itself: whom it is for, who signed it, from when to when (RFC 5280 4.1). Pure.
//!
//! Nothing is verified here; that is done where a connection is made. What cannot be read is left out.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name or organisation of whom it is for.
    pub subject: Option<String>,
    /// The common name or organisation of who signed it.
    pub issuer: Option<String>,
    /// Valid from then on.
    pub not_before: Timestamp,
    /// Valid until then.
    pub not_after: Timestamp,
    /// Names of hosts it is for.
    pub names: Vec<String>,
    /// The public key in it, as PKCS#1 has it for RSA.
    pub key: Vec<u8>,
}

/// Tags of ASN.1 DER (X.690 8).
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const OCTETS: u8 = 0x04;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
const DNS_NAME: u8 = 0x82;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0A];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1D, 0x11];

/// Reads one certificate in DER form. `None`: it is none.
pub fn read(der: &[u8]) -> Option<Certificate> {
    let (whole, _) = take(der, SEQUENCE)?;
    let (mut signed, _) = take(whole, SEQUENCE)?;
    if let Some((_, rest)) = take(signed, VERSION) {
        signed = rest;
    }
    let (_, rest) = take(signed, INTEGER)?;
    let (_, rest) = take(rest, SEQUENCE)?;
    let (issuer, rest) = take(rest, SEQUENCE)?;
    let (validity, rest) = take(rest, SEQUENCE)?;
    let (subject, rest) = take(rest, SEQUENCE)?;
    let (key, mut rest) = take(rest, SEQUENCE)?;
    let (_, key) = take(key, SEQUENCE)?;
    let (bits, _) = take(key, BITS)?;
    // The first byte counts unused bits: none in a key.
    let key = bits.strip_prefix(&[0])?.to_vec();
    let (not_before, later) = time(validity)?;
    let (not_after, _) = time(later)?;
    let mut names = Vec::new();
    while let Some((tag, content, next)) = value(rest) {
        if tag == EXTENSIONS {
            names = alternative_names(content).unwrap_or_default();
        }
        rest = next;
    }
    Some(Certificate {
        subject: name(subject),
        issuer: name(issuer),
        not_before,
        not_after,
        names,
        key,
    })
}

/// One value: its tag, its content, what follows.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (
                bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn take(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    value(bytes)
        .filter(|(tag, ..)| *tag == wanted)
        .map(|(_, content, rest)| (content, rest))
}

/// UTCTime has two digits of a year, of which 50 and more are of the last century (RFC 5280 4.1.2.5).
fn time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, content, rest) = value(bytes)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let full = match tag {
        UTC_TIME if text.get(..2)?.parse::<u8>().ok()? < 50 => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", &full).ok()?;
    Some((civil.to_zoned(TimeZone::UTC).ok()?.timestamp(), rest))
}

/// The common name of a distinguished name, or its organisation.
fn name(mut bytes: &[u8]) -> Option<String> {
    let mut organisation = None;
    while let Some((_, set, next)) = value(bytes) {
        bytes = next;
        let Some((pair, _)) = take(set, SEQUENCE) else {
            continue;
        };
        let Some((kind, held)) = take(pair, OBJECT) else {
            continue;
        };
        let Some((_, text, _)) = value(held) else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            COMMON_NAME => return Some(text),
            ORGANISATION => organisation = Some(text),
            _ => {}
        }
    }
    organisation
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let (mut list, _) = take(extensions, SEQUENCE)?;
    while let Some((extension, next)) = take(list, SEQUENCE) {
        list = next;
        let (kind, mut held) = take(extension, OBJECT)?;
        if kind != ALTERNATIVE_NAMES {
            continue;
        }
        // A flag may come first that says how important it is.
        if let Some((tag, _, rest)) = value(held)
            && tag != OCTETS
        {
            held = rest;
        }
        let (octets, _) = take(held, OCTETS)?;
        let (mut all, _) = take(octets, SEQUENCE)?;
        let mut names = Vec::new();
        while let Some((tag, content, next)) = value(all) {
            if tag == DNS_NAME {
                names.push(String::from_utf8_lossy(content).into_owned());
            }
            all = next;
        }
        return Some(names);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(years: std::ops::RangeInclusive<i32>) -> Vec<u8> {
        let mut params =
            rcgen::CertificateParams::new(vec!["mail.example".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(*years.start(), 1, 1);
        params.not_after = rcgen::date_time_ymd(*years.end(), 12, 31);
        params.distinguished_name.push(rcgen::DnType::CommonName, "mail");
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_dates_are_read_in_both_ways_of_writing_a_year() {
        let read = read(&made(2001..=2062)).unwrap();
        assert_eq!(read.not_before.to_string(), "2001-01-01T00:00:00Z");
        assert_eq!(read.not_after.to_string(), "2062-12-31T00:00:00Z");
        assert_eq!(read.names, ["mail.example"]);
        assert_eq!(read.subject, read.issuer);
        assert!(read.subject.is_some());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not_but_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..300) {
            let _ = read(&bytes);
            let mut der = made(2020..=2030);
            der.truncate(at);
            let _ = read(&der);
            bytes.extend(der);
            let _ = read(&bytes);
        }
    }
}

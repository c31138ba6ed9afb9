//! Encoded words of strangers (RFC 2047), as text for people: for lists and logs, never to build headers from.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Takes base64 with or without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The text with its encoded words decoded. What is in a character set we do not know stays as it is.
pub fn decode(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // Only white space came since an encoded word: it goes, if another one follows.
    let mut after_word = false;
    while let Some(start) = rest.find("=?") {
        let (before, from) = rest.split_at(start);
        let Some((word, behind)) = word(from) else {
            out.push_str(before);
            out.push_str("=?");
            (rest, after_word) = (&from[2..], false);
            continue;
        };
        if !(after_word && before.chars().all(char::is_whitespace)) {
            out.push_str(before);
        }
        out.push_str(&word);
        (rest, after_word) = (behind, true);
    }
    out.push_str(rest);
    out
}

/// The encoded word that `text` begins with, and what is behind it.
fn word(text: &str) -> Option<(String, &str)> {
    let mut parts = text.strip_prefix("=?")?.splitn(4, '?');
    let (charset, encoding, content, behind) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let behind = behind.strip_prefix('=')?;
    if content.contains(char::is_whitespace) {
        return None;
    }
    let bytes = match encoding {
        "B" | "b" => LENIENT.decode(content).ok()?,
        "Q" | "q" => quoted(content)?,
        _ => return None,
    };
    // A language may stand behind the character set (RFC 2231 5).
    let charset = charset.split('*').next()?.to_ascii_lowercase();
    let text = match charset.as_str() {
        "utf-8" | "us-ascii" => String::from_utf8_lossy(&bytes).into_owned(),
        "iso-8859-1" | "latin1" => bytes.iter().map(|byte| char::from(*byte)).collect(),
        _ => return None,
    };
    Some((text, behind))
}

fn quoted(content: &str) -> Option<Vec<u8>> {
    let mut bytes = content.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'_' => b' ',
            b'=' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_decoded_and_the_rest_stays() {
        for (written, meant) in [
            ("plain", "plain"),
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe_an?= alle", "Grüße an alle"),
            ("=?UTF-8?B?R3LDvMOf?=\r\n =?utf-8?b?ZQ==?=", "Grüße"),
            ("=?iso-8859-1?q?=fcber?=", "über"),
            ("a =?utf-8?B?*?= b", "a =?utf-8?B?*?= b"),
            ("=?koi8-r?B?8A==?=", "=?koi8-r?B?8A==?="),
            ("=?", "=?"),
            ("=?=?=?utf-8?q?x?=", "=?=?x"),
        ] {
            assert_eq!(decode(written), meant, "{written}");
        }
    }
}

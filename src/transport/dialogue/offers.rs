//! What a server offers in its answer to EHLO (RFC 5321 4.1.1.1). Pure.

use crate::mail::reply::Reply;

/// What EHLO told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) starttls: bool,
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
    /// `Some(0)`: no limit told.
    pub(super) size: Option<u64>,
    pub(super) mechanisms: Vec<String>,
}

impl Offers {
    pub(super) fn read(reply: &Reply) -> Offers {
        let mut offers = Offers::default();
        for line in reply.lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            match words.next() {
                Some("STARTTLS") => offers.starttls = true,
                Some("PIPELINING") => offers.pipelining = true,
                Some("8BITMIME") => offers.eight_bit = true,
                Some("SMTPUTF8") => offers.smtputf8 = true,
                Some("SIZE") => offers.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                Some("AUTH") => offers.mechanisms.extend(words.map(str::to_owned)),
                // Old servers: `AUTH=LOGIN PLAIN`.
                Some(word) => {
                    if let Some(first) = word.strip_prefix("AUTH=") {
                        offers
                            .mechanisms
                            .extend(std::iter::once(first).chain(words).map(str::to_owned));
                    }
                }
                None => {}
            }
        }
        offers
    }
}

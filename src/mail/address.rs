//! Addresses: `local@domain`, and mailboxes, which are addresses with a display name.
//!
//! lettre parses and prints them; here they are made safe to build headers from.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// `local@domain` (RFC 5321 2.3.11). Compared without regard to case.
#[derive(Clone, Debug)]
pub struct Address(lettre::Address);

/// An address with the name shown beside it (RFC 5322 3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The name shown, free of control characters.
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mail address: {why}")]
pub struct AddressError {
    /// The text, with control characters made visible.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl Address {
    /// The part before the `@`.
    pub fn local(&self) -> &str {
        self.0.user()
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// As lettre knows it.
    pub fn as_lettre(&self) -> &lettre::Address {
        &self.0
    }

    /// Needs SMTPUTF8 in an envelope (RFC 6531).
    pub fn is_international(&self) -> bool {
        !self.to_string().is_ascii()
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.to_string().to_lowercase() == other.to_string().to_lowercase()
    }
}
impl Eq for Address {}
impl std::hash::Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.to_string().to_lowercase().hash(state);
    }
}
impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Address) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Address {
    fn cmp(&self, other: &Address) -> std::cmp::Ordering {
        self.to_string()
            .to_lowercase()
            .cmp(&other.to_string().to_lowercase())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let error = |why: &str| AddressError {
            text: text.escape_debug().to_string(),
            why: why.to_owned(),
        };
        if text.chars().any(char::is_control) {
            return Err(error("it contains a control character"));
        }
        text.parse()
            .map(Address)
            .map_err(|source: lettre::address::AddressError| error(&source.to_string()))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    /// Reads `Name <local@domain>`, `"Name, Inc." <local@domain>` or `local@domain`.
    fn from_str(text: &str) -> Result<Mailbox, AddressError> {
        let error = |why: &str| AddressError {
            text: text.escape_debug().to_string(),
            why: why.to_owned(),
        };
        if text.chars().any(char::is_control) {
            return Err(error("it contains a control character"));
        }
        let parsed: lettre::message::Mailbox = text
            .trim()
            .parse()
            .map_err(|source: lettre::address::AddressError| error(&source.to_string()))?;
        let name = parsed
            .name
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty());
        Ok(Mailbox {
            name,
            address: Address(parsed.email),
        })
    }
}

impl From<Address> for Mailbox {
    fn from(address: Address) -> Mailbox {
        Mailbox { name: None, address }
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lettre::message::Mailbox::new(self.name.clone(), self.address.0.clone()).fmt(f)
    }
}

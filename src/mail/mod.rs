//! Messages and addresses: what is sent, apart from how. This module opens no socket.

pub mod address;
pub mod attachment;
pub mod encoded;
pub mod handed;
pub mod header;
pub mod incoming;
pub mod list;
pub mod message;
pub mod parsed;
pub mod reply;
pub mod zip;

use crate::mail::address::Address;
use serde::{Deserialize, Serialize};

/// Who is told to the server, apart from the text (RFC 5321 2.3.1). Never without a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "EnvelopeParts")]
pub struct Envelope {
    return_path: Address,
    recipients: Vec<Address>,
}

#[derive(Deserialize)]
struct EnvelopeParts {
    return_path: Address,
    recipients: Vec<Address>,
}

/// An envelope without a recipient was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mail needs at least one recipient")]
pub struct NoRecipient;

impl Envelope {
    /// Each recipient once, in the order given.
    pub fn new(return_path: Address, recipients: Vec<Address>) -> Result<Envelope, NoRecipient> {
        let mut seen = std::collections::HashSet::new();
        let recipients: Vec<Address> = recipients
            .into_iter()
            .filter(|address| seen.insert(address.clone()))
            .collect();
        if recipients.is_empty() {
            return Err(NoRecipient);
        }
        Ok(Envelope {
            return_path,
            recipients,
        })
    }

    /// Where a bounce goes: the address in MAIL FROM.
    pub fn return_path(&self) -> &Address {
        &self.return_path
    }

    /// At least one, none twice.
    pub fn recipients(&self) -> &[Address] {
        &self.recipients
    }
}

impl TryFrom<EnvelopeParts> for Envelope {
    type Error = NoRecipient;
    fn try_from(parts: EnvelopeParts) -> Result<Envelope, NoRecipient> {
        Envelope::new(parts.return_path, parts.recipients)
    }
}

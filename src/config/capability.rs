//! What each way of sending can do. Pure: a table, and what follows from it.
//!
//! | | repeats itself safely | is asked whether a mail was sent | answers for each recipient | at most | the copy of what was sent |
//! |---|---|---|---|---|---|
//! | smtp | no | no | yes | the server says | as the server does; Exchange: the mailbox that signs in |
//! | graph | no | by Message-ID, with Mail.Read or more | no | 150 MB an attachment | the mailbox that is called |
//! | gmail | no; an upload does | by Message-ID, with more than gmail.send | no | 35 MB, 100 recipients | the account's Sent |
//! | file | yes | by its name | no | | the file |
//!
//! No mail service has an idempotency key: a request that is repeated is a mail more.

use crate::config::settings::{GraphMailbox, Transport};
use crate::entry::OnUnknown;

/// Gmail's longest message, bytes.
pub const GMAIL_LONGEST: u64 = 36_700_160;
/// Most recipients of one message over Gmail.
pub const GMAIL_RECIPIENTS: usize = 100;
/// Graph's biggest attachment, bytes.
pub const GRAPH_ATTACHMENT: u64 = 150 * 1024 * 1024;

/// What a way of sending can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its word in the settings.
    pub name: &'static str,
    /// Handing the same mail over twice gives one mail.
    pub idempotent: bool,
    /// It can be asked whether a Message-ID was sent, where the token may read.
    pub searchable: bool,
    /// It answers for each recipient; else all are accepted, or none.
    pub per_recipient: bool,
    /// The biggest message, or attachment, bytes; `None`: the server says, or nobody does.
    pub longest: Option<u64>,
    /// Most recipients of one message.
    pub recipients: Option<usize>,
    /// Where the copy of what was sent lies.
    pub sent_copy: &'static str,
}

/// What that transport can do.
pub fn of(transport: &Transport) -> Capability {
    let none = Capability {
        name: "smtp",
        idempotent: false,
        searchable: false,
        per_recipient: false,
        longest: None,
        recipients: None,
        sent_copy: "as the mail server does it",
    };
    match transport {
        Transport::Smtp(_) => Capability {
            per_recipient: true,
            ..none
        },
        Transport::Graph(graph) => Capability {
            name: "graph",
            searchable: true,
            longest: Some(GRAPH_ATTACHMENT),
            sent_copy: match graph.mailbox {
                GraphMailbox::User => "in Sent Items of the user",
                GraphMailbox::Sender => "in Sent Items of the sender's mailbox",
            },
            ..none
        },
        Transport::Gmail(_) => Capability {
            name: "gmail",
            searchable: true,
            longest: Some(GMAIL_LONGEST),
            recipients: Some(GMAIL_RECIPIENTS),
            sent_copy: "in Sent of the account",
            ..none
        },
        Transport::File { .. } => Capability {
            name: "file",
            idempotent: true,
            sent_copy: "the file itself",
            ..none
        },
    }
}

/// What becomes of an unknown mail where nobody can look.
pub fn otherwise(policy: OnUnknown) -> &'static str {
    match policy.otherwise() {
        OnUnknown::Resend | OnUnknown::VerifyOrResend => "sent again",
        OnUnknown::Hold | OnUnknown::VerifyOrHold => "held",
    }
}

//! How a sandbox server misbehaves.

use std::time::Duration;

/// The faults of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What happens at which place; the first that fits.
    pub at: Vec<(At, Act)>,
    /// Cut the connection when so many bytes came from the client.
    pub cut_after_read: Option<u64>,
    /// Cut it when so many bytes went to the client.
    pub cut_after_written: Option<u64>,
}

impl Faults {
    /// One fault at one place.
    pub fn one(at: At, act: Act) -> Faults {
        Faults {
            at: vec![(at, act)],
            ..Faults::default()
        }
    }

    pub(super) fn find(&self, place: &At) -> Option<&Act> {
        let fits = |at: &At| match (at, place) {
            (At::Line(prefix), At::Line(line)) => line
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            _ => at == place,
        };
        self.at.iter().find(|(at, _)| fits(at)).map(|(_, act)| act)
    }
}

/// A place in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Before the greeting.
    Greeting,
    /// A command line that begins so.
    Line(String),
    /// The final dot has come; nothing is stored yet.
    Dot,
    /// The message is stored; the reply is not sent yet.
    Stored,
}

impl At {
    /// A command line that begins so.
    pub fn line(prefix: &str) -> At {
        At::Line(prefix.to_owned())
    }
}

/// What happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// This reply instead of the right one. After 421 it closes.
    Say(String),
    /// The right reply, and this text at once behind it.
    Append(String),
    /// The right reply, after a while.
    Wait(Duration),
    /// The connection is cut.
    Cut,
    /// A line that never ends.
    EndlessLine,
    /// A reply that never ends, line by line.
    EndlessReply,
    /// A reply that comes byte by byte, one in this time, without an end.
    Drip(Duration),
}

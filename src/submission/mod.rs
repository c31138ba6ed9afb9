//! Mails that others hand in: by `tidings sendmail`, or over SMTP to a listener of the daemon.
//!
//! ```text
//!   stdin ----------------------------.
//!   socket --wire--> session --mail--> intake --take_in--> journal and outbox, then "accepted"
//!              lines    pure      \   /
//!                                policy: whose it is, who is meant, who is allowed
//! ```
//!
//! | file | is about |
//! |---|---|
//! | [`policy`] | from which mailbox it leaves, and to whom it may; pure |
//! | [`wire`] | lines and messages out of bytes, strictly; pure |
//! | [`session`] | what is answered and done; no socket in it |
//! | [`listener`] | sockets, TLS, passwords, limits |
//! | [`intake`] | a message becomes an event and an entry, frozen; then it is kept |
//!
//! Nobody is told that a mail was accepted before it is on disk.

pub mod intake;
pub mod listener;
pub mod policy;
pub mod session;
pub mod wire;

//! The map. A file arrives, a job ends or a schedule is due, and the right mail leaves from the right
//! mailbox.
//!
//! ```text
//!   source --record--> journal --> dispatch --admit--> outbox --> delivery --> sender --> transport
//!                         ^        (rule, action)                    |
//!                         +--------------- outcomes, troubles -------+
//! ```
//!
//! Imports go down this table, never up. `ARCHITECTURE.md` has the layers, the invariants and where to
//! add what.
//!
//! | | |
//! |---|---|
//! | [`cli`] | the commands |
//! | [`sandbox`] | a small mail server and sign-in server, for `demo` and tests |
//! | [`app`], [`task`] | build, start, reload, stop; named tasks |
//! | [`trial`] | tests of rules: the same parts on a clock moved by hand |
//! | [`submission`] | mails of others become entries in the outbox |
//! | [`dispatch`] | a recorded event becomes entries in the outbox |
//! | [`delivery`] | entries are claimed, performed, settled |
//! | [`rule`] | what fires |
//! | [`action`] | what a rule may do |
//! | [`sender`] | account, credential, transport and pace together |
//! | [`source`] | what notices |
//! | [`oauth`] | who may sign in |
//! | [`transport`] | how one message leaves |
//! | [`store`] | what is kept |
//! | [`template`], [`config`], [`http`] | texts; settings; the way to servers over https |
//! | [`mail`], [`advice`] | messages and addresses; what a server's words mean |
//! | [`certificate`], [`ends`], [`event`], [`entry`], [`clock`], [`ground`], [`backoff`], [`pulse`] | the words |

pub mod action;
pub mod advice;
pub mod app;
pub mod backoff;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod dispatch;
pub mod ends;
pub mod entry;
pub mod event;
pub mod ground;
pub mod http;
pub mod mail;
pub mod oauth;
pub mod pulse;
pub mod rule;
pub mod sandbox;
pub mod sender;
pub mod source;
pub mod store;
pub mod submission;
pub mod suggest;
pub mod task;
pub mod template;
pub mod transport;
pub mod trial;
pub mod visible;

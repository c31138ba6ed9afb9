//! OAuth2: obtaining a grant once, with a person, and keeping it alive without one.
//!
//! ```text
//!   a person -- login --> grants -- code --> token endpoint        (callback: the browser's way back)
//!                            |
//!                         vault: sealed, in the store
//!                            |
//!   sender -- token() --> keeper -- refresh --> token endpoint     (ahead of expiry, one at a time)
//! ```
//!
//! | file | is |
//! |---|---|
//! | [`endpoint`] | where to sign in and where tokens are made: settings, or the issuer's own word |
//! | [`http`] | the one way to those addresses: https, limits, no redirects |
//! | [`refusal`] | what an answer that is not a token means |
//! | [`grants`] | the requests of RFC 6749 and 7636: authorize, redeem, refresh, revoke |
//! | [`device`] | signing in on another device, RFC 8628 |
//! | `unattended`, `managed` | tokens without a person: client credentials, JWT bearer, a machine's identity |
//! | [`proof`] | who we are to a token endpoint: a secret, a certificate, somebody's word |
//! | [`jwt`] | what these are made of |
//! | [`callback`] | how a browser's answer comes back: loopback listener, or pasted |
//! | [`login`] | a sign-in from first address to stored grant |
//! | [`vault`] | what is kept of a grant, sealed |
//! | [`key`] | with which key: where it comes from, told plainly |
//! | [`parcel`] | grants on their way to another host, sealed with a passphrase |
//! | [`plan`] | when it is renewed, and when it is left alone |
//! | [`token`] | what is handed out: a bearer token, or why there is none |
//! | `record` | one grant where it lies: store, lock, case |
//! | `hand` | the access token in memory |
//! | [`keeper`] | who looks after all of them; each by a holder of its own |
//!
//! This module knows no mail: it hands out bearer tokens and says why when it cannot.

pub mod callback;
pub mod claims;
pub mod device;
pub mod endpoint;
pub mod grants;
mod hand;
mod holder;
pub mod http;
pub mod jwt;
pub mod keeper;
pub mod key;
pub mod login;
mod managed;
pub mod parcel;
pub mod plan;
pub mod proof;
mod record;
pub mod refusal;
pub mod token;
mod unattended;
pub mod vault;

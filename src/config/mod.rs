//! Settings: read as written, with places; checked; then kept as they are meant.
//!
//! ```text
//!   file --document--> tree with places --shape (the schema)--> raw types --check--> settings
//!              \                  \                                   \
//!               `---- problems ----`----------- problems --------------`---> all of them, at once
//! ```
//!
//! | file | is about |
//! |---|---|
//! | [`document`] | files: read within limits, as a tree; where a later complaint points |
//! | [`yaml`] | YAML as a tree in which everything knows its place |
//! | [`raw`] | the types of what may be written; their JSON Schema is in [`schema`] |
//! | [`shape`] | a tree against that schema: every unknown key and wrong type |
//! | [`check`] | raw settings become [`settings`] |
//! | [`preset`] | what we know of Microsoft 365 and Google |
//! | [`scopes`] | which rights an account needs: by how mail leaves and who signs in |
//! | [`secret`] | where secrets come from |
//! | [`certificate`] | what a certificate says of itself |
//! | [`advice`] | the setup's own entries of the advice catalog |
//! | [`known`] | an account's values for the words of advice |
//! | [`calendar`] | named sets of days |
//! | [`handed`] | mails that others hand in |
//! | [`diagnostic`], [`quantity`] | problems, sizes and times |

pub mod advice;
pub mod calendar;
pub mod capability;
pub mod certificate;
pub mod check;
pub mod diagnostic;
pub mod document;
pub mod handed;
pub mod known;
pub mod preset;
pub mod quantity;
pub mod raw;
pub mod schema;
pub mod scopes;
pub mod secret;
pub mod settings;
pub mod shape;
pub mod yaml;

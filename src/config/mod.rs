//! Settings: read as written, with places; checked; then kept as they are meant.

pub mod diagnostic;
pub mod quantity;
pub mod secret;
pub mod settings;

//! What is handed out: a bearer token, or why there is none.

use crate::config::secret::Secret;
use crate::entry::Reason;
use jiff::Timestamp;
use std::time::Duration;

/// A bearer token, with at least a little life left. Does not print.
#[derive(Clone, Debug)]
pub struct AccessToken {
    secret: Secret,
    expires: Timestamp,
}

impl AccessToken {
    pub(super) fn new(secret: Secret, expires: Timestamp) -> AccessToken {
        AccessToken { secret, expires }
    }

    /// The token itself, for the one place that presents it.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// When it ends.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// Passes by itself: try again.
    #[error("{text}")]
    Transient {
        /// One sentence.
        text: String,
        /// Not before that long.
        retry_after: Option<Duration>,
    },
    /// Somebody must sign in, consent or be allowed to.
    #[error("{}", .0.text)]
    NeedsPerson(Reason),
    /// The setup or the application's registration is wrong.
    #[error("{}", .0.text)]
    NeedsConfig(Reason),
}

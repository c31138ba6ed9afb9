//! The access token in hand: what is known of a grant without asking anybody.

use crate::clock::Clock;
use crate::oauth::plan;
use crate::oauth::token::AccessToken;
use crate::oauth::vault::Kept;
use jiff::Timestamp;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One account's token in memory, and when somebody last wanted it.
#[derive(Debug)]
pub(super) struct Hand {
    clock: Clock,
    quick: Mutex<Quick>,
}

#[derive(Debug, Default)]
struct Quick {
    token: Option<Ready>,
    used: Option<Timestamp>,
}

/// A token that can be handed out. Its end is known by two clocks: the wall's may be set, the other
/// stands still while the machine sleeps. The earlier counts.
#[derive(Clone, Debug)]
struct Ready {
    token: AccessToken,
    life: Duration,
    until: Instant,
}

impl Hand {
    pub(super) fn new(clock: Clock) -> Hand {
        Hand {
            clock,
            quick: Mutex::default(),
        }
    }

    /// Somebody wants a token: the grant is in use.
    pub(super) fn mark_used(&self) {
        self.quick().used = Some(self.clock.now());
    }

    /// The token in memory, if more than its margin is left.
    pub(super) fn ready(&self) -> Option<AccessToken> {
        let quick = self.quick();
        let ready = quick.token.as_ref()?;
        (self.left(ready) > plan::margin(ready.life)).then(|| ready.token.clone())
    }

    /// The token in memory, if it still works at all.
    pub(super) fn usable(&self) -> Option<AccessToken> {
        let quick = self.quick();
        let ready = quick.token.as_ref()?;
        plan::usable(self.left(ready), ready.life).then(|| ready.token.clone())
    }

    fn left(&self, ready: &Ready) -> Duration {
        let monotonic = ready.until.saturating_duration_since(Instant::now());
        self.clock.until(ready.token.expires()).min(monotonic)
    }

    fn quick(&self) -> MutexGuard<'_, Quick> {
        self.quick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When somebody last wanted one.
    pub(super) fn used(&self) -> Option<Timestamp> {
        self.quick().used
    }

    /// The token of what is kept, from now on in hand.
    pub(super) fn remember(&self, kept: &Kept) -> AccessToken {
        let token = AccessToken::new(kept.access.clone(), kept.expires);
        let mut quick = self.quick();
        let known = quick
            .token
            .as_ref()
            .is_some_and(|ready| ready.token.secret().expose() == kept.access.expose());
        if !known {
            quick.token = Some(Ready {
                token: token.clone(),
                life: kept.life,
                until: Instant::now() + self.clock.until(kept.expires),
            });
        }
        token
    }

    /// Forgets what is in memory: somebody else decides now.
    pub(super) fn forget(&self) {
        self.quick().token = None;
    }
}

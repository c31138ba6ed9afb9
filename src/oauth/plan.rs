//! When a grant is renewed, and when it is left alone. Pure.
//!
//! ```text
//!   born ............................ margin ......... end
//!   |---- handed out at once ---------|-- renewed first, --|-- never handed out
//!                                     |   else still used  |
//! ```
//!
//! The margin is 10 minutes (a mail server was seen to refuse tokens that end sooner), or a fifth of
//! a life under 50 minutes. A grant nobody used for a day is renewed once a day, which keeps the
//! windows of idleness open (90 days at Microsoft, 6 months at Google).

use crate::entry::Reason;
use crate::oauth::vault::{Kept, Standing};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

const MARGIN: Duration = Duration::from_secs(600);
/// With less left a token is as good as ended: it would end on the way.
const LAST: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);
/// A grant that needs a person is tried that often: an administrator may have mended it.
const PROBE: Duration = Duration::from_secs(3600);

/// Who asks, and what for.
#[derive(Clone, Debug)]
pub enum Want {
    /// A token with enough life.
    Life,
    /// A token other than this one, which a server refused.
    Instead(crate::config::secret::Secret),
    /// Whatever is due by itself.
    Due {
        /// When somebody last wanted a token.
        used: Option<Timestamp>,
    },
    /// A person says: now.
    Now,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Hand out the access token as it is.
    Use,
    /// Renew it first.
    Renew,
    /// Neither: it failed not long ago. Again at that time.
    Wait(Timestamp, Reason),
    /// Neither: somebody must do something.
    Person(Reason),
    /// Neither: the setup must be mended.
    Config(Reason),
}

/// How long before its end a token of that life is renewed.
pub fn margin(life: Duration) -> Duration {
    if life < 5 * MARGIN { life / 5 } else { MARGIN }
}

/// How much of the access token is left; zero when it has ended.
pub fn left(kept: &Kept, now: Timestamp) -> Duration {
    Duration::try_from(kept.expires.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// Whether a token with that much left can still be used where no better one is to be had.
pub fn usable(left: Duration, life: Duration) -> bool {
    left > LAST.min(life / 10)
}

/// When the grant wants attention by itself.
pub fn due(kept: &Kept, used: Option<Timestamp>) -> Timestamp {
    let base = if kept.refresh.is_none() && !kept.unattended {
        kept.expires
    } else if kept.refresh_began.is_some() {
        // Its answer was lost: the sooner the old token is tried, the likelier it still works.
        Timestamp::MIN
    } else if used.is_some_and(|used| kept.refreshed.duration_since(used) < signed(DAY)) {
        after(kept.expires, -signed(margin(kept.life)))
    } else {
        after(kept.refreshed, signed(DAY)).max(after(kept.expires, -signed(margin(kept.life))))
    };
    match (&kept.standing, &kept.trouble) {
        (Standing::NeedsPerson { probed, .. } | Standing::NeedsConfig { probed, .. }, _) => {
            after(*probed, signed(PROBE))
        }
        (Standing::Valid, Some(trouble)) => base.max(trouble.not_before),
        (Standing::Valid, None) => base,
    }
}

/// What to do for somebody who wants a token of this grant. `client_id` is that of the settings;
/// `account` its name, for the text.
pub fn decide(kept: &Kept, want: &Want, client_id: &str, account: &str, now: Timestamp) -> Decision {
    let left = left(kept, now);
    // Something a refused token cannot be replaced by is no use.
    let refused = matches!(want, Want::Instead(token) if token.expose() == kept.access.expose());
    let usable = usable(left, kept.life) && !refused;
    let fresh = match want {
        Want::Life => left > margin(kept.life),
        Want::Instead(_) => usable,
        Want::Due { used } => due(kept, *used) > now,
        Want::Now => false,
    };
    if fresh && (usable || matches!(want, Want::Due { .. })) {
        return Decision::Use;
    }
    let or_use = |other: Decision| {
        if usable && !matches!(want, Want::Now) {
            Decision::Use
        } else {
            other
        }
    };
    if kept.client_id != client_id {
        return or_use(Decision::Person(Reason {
            text: format!(
                "account `{account}` was signed in through the client {}, the settings now say {client_id}: a grant belongs to its client",
                kept.client_id
            ),
            steps: vec![format!("Sign in again: tidings auth login {account}")],
            ..Reason::default()
        }));
    }
    if kept.refresh.is_none() && !kept.unattended {
        return or_use(Decision::Person(Reason {
            text: format!("the access of account `{account}` has ended, and no refresh token came with it"),
            steps: vec![
                "Add offline_access to the scopes (at Google: access_type=offline and prompt=consent)"
                    .to_owned(),
                format!("Sign in again: tidings auth login {account}"),
            ],
            ..Reason::default()
        }));
    }
    if matches!(want, Want::Now) {
        return Decision::Renew;
    }
    match (&kept.standing, &kept.trouble) {
        (Standing::NeedsPerson { reason, probed, .. }, _) if now < after(*probed, signed(PROBE)) => {
            or_use(Decision::Person(reason.clone()))
        }
        (Standing::NeedsConfig { reason, probed, .. }, _) if now < after(*probed, signed(PROBE)) => {
            or_use(Decision::Config(reason.clone()))
        }
        (Standing::Valid, Some(trouble)) if now < trouble.not_before => {
            or_use(Decision::Wait(trouble.not_before, trouble.reason.clone()))
        }
        _ => Decision::Renew,
    }
}

/// A time and a while; at the ends of time it stays there.
pub fn after(time: Timestamp, wait: SignedDuration) -> Timestamp {
    time.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// A while that can be added to a time.
pub fn signed(wait: Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;
    use crate::oauth::grants::Identity;
    use crate::oauth::vault::Trouble;

    fn at(minutes: i64) -> Timestamp {
        let start: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        after(start, SignedDuration::from_mins(minutes))
    }

    /// Born at minute 0, lives an hour.
    fn kept() -> Kept {
        Kept {
            access: Secret::new("access"),
            refresh: Some(Secret::new("refresh")),
            previous: None,
            scopes: vec![],
            token_type: "Bearer".into(),
            obtained: at(0),
            expires: at(60),
            life: Duration::from_secs(3600),
            refreshed: at(0),
            refresh_began: None,
            identity: Identity::default(),
            client_id: "tidings".into(),
            unattended: false,
            standing: Standing::Valid,
            trouble: None,
            claims: None,
            skew: None,
        }
    }

    fn decided(kept: &Kept, want: Want, minute: i64) -> Decision {
        decide(kept, &want, "tidings", "office", at(minute))
    }

    #[test]
    fn margin_is_ten_minutes_or_a_fifth_of_a_short_life() {
        assert_eq!(margin(Duration::from_secs(3600)), Duration::from_secs(600));
        assert_eq!(margin(Duration::from_secs(600)), Duration::from_secs(120));
        assert_eq!(margin(Duration::from_secs(20)), Duration::from_secs(4));
    }

    #[test]
    fn token_is_renewed_when_its_margin_begins() {
        assert_eq!(decided(&kept(), Want::Life, 49), Decision::Use);
        assert_eq!(decided(&kept(), Want::Life, 51), Decision::Renew);
    }

    #[test]
    fn passing_trouble_leaves_a_valid_token_in_use_and_is_not_repeated_before_its_time() {
        let troubled = Kept {
            trouble: Some(Trouble {
                failures: 1,
                since: at(51),
                not_before: at(70),
                reason: Reason::new("down"),
            }),
            ..kept()
        };
        assert_eq!(decided(&troubled, Want::Life, 55), Decision::Use);
        assert_eq!(
            decided(&troubled, Want::Life, 61),
            Decision::Wait(at(70), Reason::new("down"))
        );
        assert_eq!(decided(&troubled, Want::Life, 71), Decision::Renew);
        assert_eq!(decided(&troubled, Want::Now, 61), Decision::Renew);
    }

    #[test]
    fn grant_that_needs_a_person_is_probed_once_an_hour_and_used_while_it_lasts() {
        let standing = Standing::NeedsPerson {
            reason: Reason::new("mfa"),
            since: at(51),
            probed: at(51),
        };
        let needy = Kept { standing, ..kept() };
        assert_eq!(decided(&needy, Want::Life, 55), Decision::Use);
        assert_eq!(
            decided(&needy, Want::Life, 100),
            Decision::Person(Reason::new("mfa"))
        );
        assert_eq!(decided(&needy, Want::Life, 112), Decision::Renew);
        assert_eq!(due(&needy, None), at(111));
    }

    #[test]
    fn refused_token_is_replaced_and_another_one_is_handed_out() {
        assert_eq!(
            decided(&kept(), Want::Instead(Secret::new("access")), 5),
            Decision::Renew
        );
        assert_eq!(
            decided(&kept(), Want::Instead(Secret::new("older")), 5),
            Decision::Use
        );
    }

    #[test]
    fn without_a_refresh_token_a_person_is_needed_at_the_end() {
        let short = Kept {
            refresh: None,
            ..kept()
        };
        assert_eq!(decided(&short, Want::Life, 55), Decision::Use);
        assert!(matches!(decided(&short, Want::Life, 60), Decision::Person(_)));
    }

    #[test]
    fn application_gets_a_new_token_ahead_of_the_end_and_needs_nobody() {
        let own = Kept {
            refresh: None,
            unattended: true,
            ..kept()
        };
        assert_eq!(decided(&own, Want::Life, 49), Decision::Use);
        assert_eq!(decided(&own, Want::Life, 51), Decision::Renew);
        assert_eq!(decided(&own, Want::Life, 90), Decision::Renew);
        assert_eq!(due(&own, Some(at(0))), at(50));
    }

    #[test]
    fn grant_of_another_client_needs_a_person() {
        let other = Kept {
            client_id: "old".into(),
            ..kept()
        };
        assert_eq!(decided(&other, Want::Life, 1), Decision::Use);
        let Decision::Person(reason) = decided(&other, Want::Life, 60) else {
            panic!()
        };
        assert!(reason.text.contains("old") && reason.text.contains("tidings"));
    }

    #[test]
    fn idle_grant_is_renewed_once_a_day_and_a_used_one_ahead_of_its_end() {
        assert_eq!(due(&kept(), Some(at(0))), at(50));
        assert_eq!(due(&kept(), None), at(24 * 60));
        let long = Kept {
            expires: at(28 * 60),
            life: Duration::from_secs(28 * 3600),
            ..kept()
        };
        assert_eq!(due(&long, None), at(28 * 60 - 10));
        let cut = Kept {
            refresh_began: Some(at(1)),
            ..kept()
        };
        assert_eq!(decided(&cut, Want::Due { used: None }, 2), Decision::Renew);
        assert_eq!(decided(&cut, Want::Life, 2), Decision::Use);
    }
}

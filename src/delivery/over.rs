//! Fail-over: when a mail goes on by another account that its rule names. Pure.
//!
//! ```text
//!   the account needs a person               --> the next account, at once
//!   it was out of reach for `fail_over`      --> the next account, at once
//!   the last of them failed                  --> the first one, after the usual wait
//! ```
//!
//! Never a mail that may have gone out, in part or in whole: another service would not know that it is the same.

use crate::action::Mail;
use crate::entry::State;
use crate::sender::Outcome;
use crate::store::Attempt;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// What an outcome says of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It answers; or what is wrong is the mail's own affair.
    Up,
    /// It is out of reach, or wants to be left alone for a while.
    Down,
    /// It needs a person.
    Stuck,
}

/// Reads an outcome.
pub fn condition(outcome: &Outcome) -> Condition {
    match outcome {
        Outcome::Grant(_) | Outcome::Account(_) => Condition::Stuck,
        Outcome::Later { everyone: true, .. } => Condition::Down,
        _ => Condition::Up,
    }
}

/// Whether a mail shall go on by another account. `down`: since when this one is out of reach.
pub fn calls_for(condition: Condition, down: Timestamp, now: Timestamp, patience: Duration) -> bool {
    let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
    match condition {
        Condition::Up => false,
        Condition::Down => now.duration_since(down) >= patience,
        Condition::Stuck => true,
    }
}

/// Whether it is certain that nobody has the mail.
pub fn is_unsent(attempts: &[Attempt]) -> bool {
    attempts
        .iter()
        .all(|attempt| attempt.outcome != Some(State::Unknown))
}

/// The account to go on by, and whether all were tried now. `known`: whether the settings still have it.
pub fn next(mail: &Mail, known: impl Fn(&str) -> bool) -> Option<(String, bool)> {
    let at = mail.accounts.iter().position(|name| *name == mail.account)?;
    let count = mail.accounts.len();
    (1..count)
        .map(|step| at + step)
        .find(|place| known(&mail.accounts[place % count]))
        .map(|place| (mail.accounts[place % count].clone(), place >= count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Reason;
    use crate::mail::Envelope;

    fn mail(account: &str) -> Mail {
        let to = "b@x.example".parse().unwrap();
        Mail {
            account: account.to_owned(),
            accounts: ["office", "relay", "last"].map(str::to_owned).to_vec(),
            sender: "a@x.example".parse().unwrap(),
            envelope: Envelope::new("a@x.example".parse().unwrap(), vec![to]).unwrap(),
            message_id: "1@x.example".to_owned(),
            refused: Vec::new(),
        }
    }

    #[test]
    fn accounts_are_tried_in_their_order_and_then_from_the_start() {
        let all = |_: &str| true;
        assert_eq!(next(&mail("office"), all), Some(("relay".to_owned(), false)));
        assert_eq!(next(&mail("last"), all), Some(("office".to_owned(), true)));
        assert_eq!(
            next(&mail("office"), |name| name != "relay"),
            Some(("last".to_owned(), false))
        );
        assert_eq!(next(&mail("office"), |_| false), None);
        let alone = Mail {
            accounts: Vec::new(),
            ..mail("office")
        };
        assert_eq!(next(&alone, all), None);
    }

    #[test]
    fn who_needs_a_person_is_left_at_once_and_who_is_out_of_reach_after_a_while() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let ago = |minutes| now - SignedDuration::from_mins(minutes);
        let patience = Duration::from_secs(15 * 60);
        assert!(calls_for(Condition::Stuck, now, now, patience));
        assert!(!calls_for(Condition::Down, ago(14), now, patience));
        assert!(calls_for(Condition::Down, ago(15), now, patience));
        assert!(!calls_for(Condition::Up, ago(99), now, patience));
    }

    #[test]
    fn only_what_is_wrong_with_the_account_counts() {
        let later = |everyone| Outcome::Later {
            reason: Reason::new("x"),
            after: None,
            everyone,
        };
        assert_eq!(condition(&later(true)), Condition::Down);
        assert_eq!(condition(&later(false)), Condition::Up);
        assert_eq!(condition(&Outcome::Grant(Reason::new("x"))), Condition::Stuck);
        assert_eq!(condition(&Outcome::Unknown(Reason::new("x"))), Condition::Up);
        assert_eq!(condition(&Outcome::Never(Reason::new("x"))), Condition::Up);
    }

    #[test]
    fn what_was_unknown_once_stays_with_its_account() {
        let attempt = |outcome| Attempt {
            number: 1,
            started: Timestamp::UNIX_EPOCH,
            ended: None,
            outcome,
            reason: None,
            gated: true,
        };
        assert!(is_unsent(&[attempt(Some(State::Deferred)), attempt(None)]));
        assert!(!is_unsent(&[attempt(Some(State::Unknown)), attempt(None)]));
    }
}

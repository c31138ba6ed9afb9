//! From what became of an attempt to what becomes of the entry. Pure.

use crate::action::Mail;
use crate::backoff;
use crate::entry::{Entry, EntryId, Reason, Settlement};
use crate::mail::Envelope;
use crate::sender::Outcome;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How long a refusal that looks passing may be a permission that still spreads (Exchange needs 30
/// to 120 minutes), before the mail is held.
const SPREADING: SignedDuration = SignedDuration::from_hours(2);

/// Wait between two tries while a permission may still be spreading.
const SPREAD_WAIT: Duration = Duration::from_secs(20 * 60);

/// Wait after the store kept its gate shut.
const SHUT: Duration = Duration::from_secs(5);

/// How retries are spaced, and when they end.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Before the second attempt.
    pub first: Duration,
    /// Longest wait between two attempts.
    pub longest: Duration,
    /// A mail not accepted this long after it was admitted is held.
    pub give_up: Duration,
}

/// What becomes of an entry, and of its lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Of the entry.
    pub settlement: Settlement,
    /// The effect to keep instead, where only some recipients are left.
    pub effect: Option<Mail>,
    /// When an entry that became unknown is tried again.
    pub resend: Option<Timestamp>,
    /// Nothing else of this lane is tried before this time.
    pub pause: Option<Timestamp>,
    /// What a person should be told.
    pub trouble: Option<Trouble>,
}

/// What a person should be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// About the account's grant. The token keeper knows when it is mended.
    Grant(Reason),
    /// About the account at its mail server. Mended when a mail of it is accepted.
    Account(Reason),
    /// About this mail.
    Mail(Reason),
}

/// Decides. `random` (0.0 ..= 1.0) spreads the retries.
pub fn settle(
    outcome: Outcome,
    entry: &Entry,
    mail: &Mail,
    now: Timestamp,
    retry: Retry,
    random: f64,
) -> Verdict {
    let later = |reason: Reason, after: Option<Duration>, everyone: bool| {
        let wait = backoff::wait(entry.attempts.max(1), retry.first, retry.longest, after, random);
        let until = now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_hours(1));
        if entry
            .since
            .saturating_add(retry.give_up)
            .is_ok_and(|end| end <= now)
        {
            let reason = given_up(reason, retry.give_up, entry.id);
            return Verdict {
                settlement: Settlement::Hold(reason.clone()),
                effect: None,
                resend: None,
                pause: everyone.then_some(until),
                trouble: Some(Trouble::Mail(reason)),
            };
        }
        Verdict {
            settlement: Settlement::Defer(until, reason),
            effect: None,
            resend: None,
            pause: everyone.then_some(until),
            trouble: None,
        }
    };
    let ended = |settlement: Settlement, trouble: Option<Trouble>| Verdict {
        settlement,
        effect: None,
        resend: None,
        pause: None,
        trouble,
    };
    match outcome {
        Outcome::Later {
            reason,
            after,
            everyone,
        } => later(reason, after, everyone),
        Outcome::Grant(reason) => waiting(later, reason, Trouble::Grant),
        Outcome::Account(reason) => waiting(later, reason, Trouble::Account),
        Outcome::Mail {
            reason,
            spreading: true,
        } if now.duration_since(entry.created) < SPREADING => later(reason, Some(SPREAD_WAIT), false),
        Outcome::Mail { mut reason, .. } => {
            reason.steps.push(retry_step(entry.id));
            ended(Settlement::Hold(reason.clone()), Some(Trouble::Mail(reason)))
        }
        Outcome::Never(reason) => ended(Settlement::Fail(reason.clone()), Some(Trouble::Mail(reason))),
        Outcome::Unknown(reason) => {
            let again = later(reason.clone(), None, false);
            let mut verdict = ended(Settlement::Lose(reason.clone()), None);
            match again.settlement {
                // A server that never answers must not get a copy a minute for days.
                Settlement::Defer(until, _) if entry.on_unknown.comes_back() => verdict.resend = Some(until),
                _ => verdict.trouble = Some(Trouble::Mail(reason)),
            }
            verdict
        }
        // The store would not let it go out: at once it would not either.
        Outcome::NotSent(_) => Verdict {
            pause: Some(now + SHUT),
            ..ended(Settlement::Release, None)
        },
        Outcome::Answered {
            accepted,
            refused,
            later: again,
            after,
        } => {
            let refused = [mail.refused.clone(), refused].concat();
            let told = refused_reason(accepted.as_deref(), &refused, &again);
            let trouble = (!refused.is_empty()).then(|| Trouble::Mail(told.clone()));
            let left: Vec<_> = again.into_iter().map(|(address, _)| address).collect();
            match Envelope::new(mail.envelope.return_path().clone(), left) {
                Ok(envelope) => {
                    let mut verdict = later(told, after, false);
                    verdict.effect = Some(Mail {
                        // Somebody has it: it stays where it is.
                        accounts: match &accepted {
                            Some(_) => Vec::new(),
                            None => mail.accounts.clone(),
                        },
                        envelope,
                        refused,
                        ..mail.clone()
                    });
                    verdict.trouble = verdict.trouble.or(trouble);
                    verdict
                }
                Err(_) if accepted.is_some() => ended(Settlement::Accept(told), trouble),
                Err(_) => ended(Settlement::Fail(told), trouble),
            }
        }
    }
}

/// The mail is fine, so it waits; only its account is told about.
fn waiting(
    later: impl Fn(Reason, Option<Duration>, bool) -> Verdict,
    reason: Reason,
    trouble: fn(Reason) -> Trouble,
) -> Verdict {
    let mut verdict = later(reason.clone(), None, true);
    verdict.trouble.get_or_insert(trouble(reason));
    verdict
}

fn retry_step(id: EntryId) -> String {
    format!("When that is mended: tidings outbox retry {id}")
}

fn given_up(mut reason: Reason, after: Duration, id: EntryId) -> Reason {
    let span = jiff::SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
    reason.text = format!("not accepted within {span:#}; last: {}", reason.text);
    reason.steps.push(retry_step(id));
    reason
}

/// One reason for what the server said about several recipients.
fn refused_reason(
    accepted: Option<&str>,
    refused: &[(crate::mail::address::Address, Reason)],
    later: &[(crate::mail::address::Address, Reason)],
) -> Reason {
    let Some((_, first)) = refused.first().or(later.first()) else {
        return Reason {
            text: "accepted".to_owned(),
            reply: accepted.map(str::to_owned),
            ..Reason::default()
        };
    };
    let each = |list: &[(crate::mail::address::Address, Reason)]| {
        list.iter()
            .map(|(address, reason)| match &reason.reply {
                Some(reply) => format!("{address} ({reply})"),
                None => format!("{address} ({})", reason.text),
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut parts = Vec::new();
    if accepted.is_some() {
        parts.push("accepted for the other recipients".to_owned());
    }
    if !refused.is_empty() {
        parts.push(format!("refused for {}", each(refused)));
    }
    if !later.is_empty() {
        parts.push(format!("to be tried again for {}", each(later)));
    }
    Reason {
        text: format!("{}: {}", parts.join("; "), first.text),
        reply: accepted.map(str::to_owned).or_else(|| first.reply.clone()),
        advice: first.advice.clone(),
        steps: first.steps.clone(),
        who: first.who.clone(),
        takes: first.takes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, OnUnknown, State};
    use crate::mail::address::Address;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hours * 3600).unwrap()
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn mail() -> Mail {
        let to = ["a@example.org", "b@example.org", "c@example.org"]
            .map(address)
            .to_vec();
        Mail {
            account: "office".into(),
            accounts: Vec::new(),
            sender: address("robot@example.org"),
            envelope: Envelope::new(address("robot@example.org"), to).unwrap(),
            message_id: "<1@example.org>".into(),
            refused: Vec::new(),
        }
    }

    fn entry(attempts: u32) -> Entry {
        Entry {
            id: EntryId(1),
            key: "k".into(),
            kind: Kind::Mail,
            rule: "r".into(),
            event: None,
            lane: "office robot@example.org".into(),
            summary: serde_json::Value::Null,
            state: State::Leased,
            reason: None,
            due: at(0),
            attempts,
            on_unknown: OnUnknown::Resend,
            created: at(0),
            since: at(0),
            changed: at(0),
        }
    }

    const RETRY: Retry = Retry {
        first: Duration::from_secs(60),
        longest: Duration::from_secs(3600),
        give_up: Duration::from_secs(48 * 3600),
    };

    fn decide(outcome: Outcome, attempts: u32, now: Timestamp) -> Verdict {
        settle(outcome, &entry(attempts), &mail(), now, RETRY, 0.5)
    }

    fn busy(everyone: bool) -> Outcome {
        Outcome::Later {
            reason: Reason::new("busy"),
            after: None,
            everyone,
        }
    }

    #[test]
    fn a_passing_refusal_is_deferred_by_the_backoff() {
        let verdict = decide(busy(false), 1, at(0));
        assert_eq!(
            verdict.settlement,
            Settlement::Defer(at(0) + Duration::from_secs(60), Reason::new("busy"))
        );
        assert_eq!(verdict.pause, None);
    }

    #[test]
    fn what_concerns_the_mailbox_pauses_its_lane() {
        assert_eq!(
            decide(busy(true), 1, at(0)).pause,
            Some(at(0) + Duration::from_secs(60))
        );
    }

    #[test]
    fn what_the_server_asked_for_is_waited_for() {
        let outcome = Outcome::Later {
            reason: Reason::new("slow down"),
            after: Some(Duration::from_secs(7200)),
            everyone: true,
        };
        assert_eq!(decide(outcome, 1, at(0)).pause, Some(at(2)));
    }

    #[test]
    fn a_mail_too_old_is_held_and_told_never_dropped() {
        let verdict = decide(busy(false), 40, at(48));
        let Settlement::Hold(reason) = &verdict.settlement else {
            panic!("{verdict:?}")
        };
        assert!(
            reason.text.starts_with("not accepted within 48h"),
            "{}",
            reason.text
        );
        assert!(matches!(verdict.trouble, Some(Trouble::Mail(_))));
    }

    #[test]
    fn an_account_in_need_lets_its_mails_wait() {
        let verdict = decide(Outcome::Account(Reason::new("sign in again")), 3, at(1));
        assert!(matches!(verdict.settlement, Settlement::Defer(..)));
        assert!(verdict.pause.is_some());
        assert_eq!(
            verdict.trouble,
            Some(Trouble::Account(Reason::new("sign in again")))
        );
    }

    #[test]
    fn a_missing_right_holds_the_mail_at_once_when_final_and_after_two_hours_when_it_may_spread() {
        let outcome = |spreading| Outcome::Mail {
            reason: Reason::new("SendAs is missing"),
            spreading,
        };
        assert!(matches!(
            decide(outcome(false), 1, at(0)).settlement,
            Settlement::Hold(_)
        ));
        assert!(matches!(
            decide(outcome(true), 1, at(0)).settlement,
            Settlement::Defer(..)
        ));
        assert!(matches!(
            decide(outcome(true), 6, at(2)).settlement,
            Settlement::Hold(_)
        ));
    }

    #[test]
    fn recipients_to_try_again_are_all_that_is_left_in_the_envelope() {
        let outcome = Outcome::Answered {
            accepted: Some("250 ok".into()),
            refused: vec![(address("b@example.org"), Reason::new("no such user"))],
            later: vec![(address("c@example.org"), Reason::new("mailbox busy"))],
            after: None,
        };
        let verdict = decide(outcome, 1, at(0));
        assert!(matches!(verdict.settlement, Settlement::Defer(..)));
        assert_eq!(
            verdict.effect.unwrap().envelope.recipients(),
            [address("c@example.org")]
        );
        let Some(Trouble::Mail(reason)) = verdict.trouble else {
            panic!("nobody is told of b")
        };
        assert!(
            reason.text.contains("refused for b@example.org"),
            "{}",
            reason.text
        );
    }

    #[test]
    fn a_recipient_refused_earlier_is_still_told_of_when_the_rest_is_accepted() {
        let refused = vec![(address("b@example.org"), Reason::new("no such user"))];
        let outcome = Outcome::Answered {
            accepted: Some("250 ok".into()),
            refused: Vec::new(),
            later: Vec::new(),
            after: None,
        };
        let mail = Mail { refused, ..mail() };
        let verdict = settle(outcome, &entry(2), &mail, at(0), RETRY, 0.5);
        let Settlement::Accept(reason) = verdict.settlement else {
            panic!()
        };
        assert!(
            reason.text.contains("refused for b@example.org"),
            "{}",
            reason.text
        );
        assert!(verdict.trouble.is_some());
    }

    #[test]
    fn a_mail_all_accepted_is_accepted_with_the_servers_words() {
        let outcome = Outcome::Answered {
            accepted: Some("250 2.0.0 queued as 7".into()),
            refused: Vec::new(),
            later: Vec::new(),
            after: None,
        };
        let verdict = decide(outcome, 1, at(0));
        let Settlement::Accept(reason) = verdict.settlement else {
            panic!()
        };
        assert_eq!(reason.reply.as_deref(), Some("250 2.0.0 queued as 7"));
        assert_eq!(verdict.trouble, None);
    }

    #[test]
    fn a_mail_refused_for_everybody_has_failed() {
        let outcome = Outcome::Answered {
            accepted: None,
            refused: vec![(address("a@example.org"), Reason::new("no such user"))],
            later: Vec::new(),
            after: None,
        };
        assert!(matches!(
            decide(outcome, 1, at(0)).settlement,
            Settlement::Fail(_)
        ));
    }

    #[test]
    fn what_is_unknown_goes_again_ever_later_and_in_the_end_waits_for_a_person() {
        let lost = || Outcome::Unknown(Reason::new("cut"));
        let minutes = |minutes: u64| Some(at(0) + Duration::from_secs(60 * minutes));
        assert_eq!(decide(lost(), 1, at(0)).resend, minutes(1));
        assert_eq!(decide(lost(), 5, at(0)).resend, minutes(16));
        let last = decide(lost(), 60, at(48));
        assert_eq!(
            (last.resend, matches!(last.trouble, Some(Trouble::Mail(_)))),
            (None, true)
        );
        let held = settle(
            lost(),
            &Entry {
                on_unknown: OnUnknown::Hold,
                ..entry(1)
            },
            &mail(),
            at(0),
            RETRY,
            0.5,
        );
        assert_eq!(
            (held.resend, matches!(held.trouble, Some(Trouble::Mail(_)))),
            (None, true)
        );
    }

    #[test]
    fn an_attempt_without_an_answer_is_unknown_and_one_before_the_gate_is_given_back() {
        assert!(matches!(
            decide(Outcome::Unknown(Reason::new("cut")), 1, at(0)).settlement,
            Settlement::Lose(_)
        ));
        let shut = decide(Outcome::NotSent("lease lost".into()), 1, at(0));
        assert_eq!(shut.settlement, Settlement::Release);
        assert_eq!(shut.pause, Some(at(0) + SHUT), "not again at once");
    }
}

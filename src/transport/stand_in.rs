//! A stand-in for every mail server, in a test of rules: it keeps what it is handed, and answers as the test says.
//!
//! Opens no socket. What its answers lead to is decided where the answers of real servers are read.

use crate::advice::{Local, Stage, Symptom};
use crate::clock::Clock;
use crate::mail::address::Address;
use crate::mail::reply::Reply;
use crate::transport::{Content, Gate, Parcel, RecipientVerdict, Report, Verdict};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a server answers that does not simply accept.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It refuses, at that step, for these recipients or, where none is named, for all.
    Refuses {
        /// In its own words.
        reply: Reply,
        /// When it says so.
        stage: Stage,
        /// For whom alone.
        recipients: Vec<Address>,
    },
    /// Nobody answers there.
    Away,
    /// It takes the message and then says nothing.
    Silent,
}

/// A mail that was handed over, or was meant to be.
#[derive(Clone, Debug)]
pub struct Handed {
    /// When.
    pub at: Timestamp,
    /// By which account.
    pub account: String,
    /// Who is told to the server.
    pub envelope: crate::mail::Envelope,
    /// The message, whole.
    pub message: Vec<u8>,
    /// What the server said.
    pub said: String,
    /// For whom the server took responsibility.
    pub accepted: Vec<Address>,
}

/// The stand-in for all servers of a setup.
#[derive(Debug)]
pub struct StandIn {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By account; how often, where that is limited.
    answers: BTreeMap<String, (Answer, Option<u32>)>,
    handed: Vec<Handed>,
}

impl StandIn {
    /// One that accepts everything.
    pub fn new(clock: Clock) -> StandIn {
        StandIn {
            clock,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the account's server answers like this, so many times.
    pub fn answer(&self, account: &str, answer: Answer, times: Option<u32>) {
        self.state().answers.insert(account.to_owned(), (answer, times));
    }

    /// From now on the account's server accepts.
    pub fn accept(&self, account: &str) {
        self.state().answers.remove(account);
    }

    /// What was handed over since this was last asked.
    pub fn take(&self) -> Vec<Handed> {
        std::mem::take(&mut self.state().handed)
    }

    fn next(&self, account: &str) -> Option<Answer> {
        let mut state = self.state();
        let (answer, left) = state.answers.get_mut(account)?;
        let answer = answer.clone();
        match left {
            Some(1) => {
                state.answers.remove(account);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Some(answer)
    }

    /// Takes a message, or refuses it.
    pub async fn submit(&self, account: &str, parcel: &Parcel, gate: &dyn Gate) -> Report {
        let message = match &parcel.content {
            Content::Bytes(bytes) => bytes.to_vec(),
            Content::File { path, .. } => match tokio::fs::read(path).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    return Report::of(Verdict::Unreached {
                        text: format!("the message cannot be read: {error}"),
                        transient: true,
                        local: Local::MessageUnreadable,
                    });
                }
            },
        };
        let answer = self.next(account);
        // Past the gate are those that hear the end of the message.
        let past = match &answer {
            Some(Answer::Refuses { recipients, .. }) => {
                let all = parcel.envelope.recipients();
                !recipients.is_empty() && all.iter().any(|address| !recipients.contains(address))
            }
            Some(Answer::Away) => false,
            Some(Answer::Silent) | None => true,
        };
        if past && let Err(closed) = gate.pass().await {
            return Report::of(Verdict::GateClosed(closed));
        }
        let (report, said, accepted) = read(answer, parcel.envelope.recipients());
        self.state().handed.push(Handed {
            at: self.clock.now(),
            account: account.to_owned(),
            envelope: parcel.envelope.clone(),
            message,
            said,
            accepted,
        });
        report
    }
}

/// What an answer says of these recipients: the report, the words, and who was accepted.
fn read(answer: Option<Answer>, all: &[Address]) -> (Report, String, Vec<Address>) {
    const ACCEPTED: &str = "250 2.0.0 accepted";
    let accept = |accepted: Vec<Address>, refused: Vec<(Address, RecipientVerdict)>, said: String| {
        let mut recipients: Vec<_> = accepted
            .iter()
            .map(|address| (address.clone(), RecipientVerdict::Accepted))
            .collect();
        recipients.extend(refused);
        let verdict = Verdict::Accepted {
            reply: ACCEPTED.to_owned(),
        };
        (Report { verdict, recipients }, said, accepted)
    };
    match answer {
        None => accept(all.to_vec(), Vec::new(), ACCEPTED.to_owned()),
        Some(Answer::Away) => {
            let text = "the server cannot be reached: the test says that nobody answers".to_owned();
            let verdict = Verdict::Unreached {
                text: text.clone(),
                transient: true,
                local: Local::ConnectFailed,
            };
            (Report::of(verdict), text, Vec::new())
        }
        Some(Answer::Silent) => {
            let text = "the server took the message, and no answer came".to_owned();
            (
                Report::of(Verdict::Unknown { text: text.clone() }),
                text,
                Vec::new(),
            )
        }
        Some(Answer::Refuses {
            reply,
            stage,
            recipients,
        }) => {
            let said = reply.text();
            let symptom = Symptom {
                stage: Some(stage),
                code: Some(reply.code),
                enhanced: reply.enhanced.clone(),
                text: said.clone(),
                ..Symptom::default()
            };
            let (refused, others): (Vec<_>, Vec<_>) = all
                .iter()
                .cloned()
                .partition(|address| recipients.contains(address));
            if recipients.is_empty() {
                return (Report::of(Verdict::Refused(symptom)), said, Vec::new());
            }
            let refused: Vec<_> = refused
                .into_iter()
                .map(|address| (address, RecipientVerdict::Refused(symptom.clone())))
                .collect();
            if others.is_empty() {
                let report = Report {
                    verdict: Verdict::Refused(symptom),
                    recipients: refused,
                };
                return (report, said, Vec::new());
            }
            let said = if refused.is_empty() {
                ACCEPTED.to_owned()
            } else {
                said
            };
            accept(others, refused, said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Open;

    fn parcel() -> Parcel {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let to = vec![address("a@example.org"), address("b@example.org")];
        Parcel {
            envelope: crate::mail::Envelope::new(address("r@example.org"), to).unwrap(),
            content: Content::Bytes(std::sync::Arc::from(b"Subject: x\r\n\r\n".as_slice())),
            message_id: "<1@example.org>".into(),
        }
    }

    fn refusal(recipients: Vec<Address>) -> Answer {
        Answer::Refuses {
            reply: Reply {
                code: 550,
                enhanced: Some("5.1.1".into()),
                lines: vec!["5.1.1 no such user".into()],
            },
            stage: Stage::SmtpRcpt,
            recipients,
        }
    }

    #[tokio::test]
    async fn it_answers_as_often_as_it_was_told_and_accepts_from_then_on() {
        let stand_in = StandIn::new(Clock::by_hand(Timestamp::UNIX_EPOCH).0);
        stand_in.answer("office", refusal(Vec::new()), Some(1));
        let first = stand_in.submit("office", &parcel(), &Open).await;
        assert!(matches!(first.verdict, Verdict::Refused(symptom) if symptom.code == Some(550)));
        let second = stand_in.submit("office", &parcel(), &Open).await;
        assert!(matches!(second.verdict, Verdict::Accepted { .. }));
        let handed = stand_in.take();
        assert_eq!((handed[0].accepted.len(), handed[1].accepted.len()), (0, 2));
        assert!(stand_in.take().is_empty());
    }

    #[tokio::test]
    async fn one_recipient_is_refused_and_the_other_gets_it() {
        let stand_in = StandIn::new(Clock::by_hand(Timestamp::UNIX_EPOCH).0);
        let bad: Address = "b@example.org".parse().unwrap();
        stand_in.answer("office", refusal(vec![bad.clone()]), None);
        let report = stand_in.submit("office", &parcel(), &Open).await;
        assert!(matches!(report.verdict, Verdict::Accepted { .. }));
        let refused = report
            .recipients
            .iter()
            .filter(|(_, verdict)| matches!(verdict, RecipientVerdict::Refused(_)))
            .map(|(address, _)| address.clone());
        assert_eq!(refused.collect::<Vec<_>>(), [bad]);
    }
}

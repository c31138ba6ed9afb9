//! A look at a server without a mail: as far as a mail would go, up to the sender. For people who look for a fault.

use super::super::transcript::{Said, Transcript};
use super::super::{Login, Verdict};
use super::{Instant, Smtp, ended_early};
use crate::advice::Stage;
use crate::mail::address::Address;

/// What came of a look.
#[derive(Debug)]
pub struct Look {
    /// What was said, in order, secrets masked.
    pub said: Vec<(Said, String)>,
    /// The server's certificates in DER form, its own first. None without encryption, or where they were refused.
    pub certificates: Vec<Vec<u8>>,
    /// Why the session did not come to be.
    pub refused: Option<Verdict>,
    /// Each sender that was asked about, and the answer.
    pub senders: Vec<(Address, Verdict)>,
}

impl Smtp {
    /// Opens a connection of its own, signs in, and asks about each of `senders`; nothing is sent.
    pub async fn look(&self, login: &Login, senders: &[Address]) -> Look {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.limits.total;
        let transcript = Transcript::heard();
        let mut look = Look {
            said: Vec::new(),
            certificates: Vec::new(),
            refused: None,
            senders: Vec::new(),
        };
        match shared.open(login, deadline, Some(&transcript)).await {
            Err(report) => {
                // Whoever refuses a sign-in shows a certificate all the same.
                let at_sign_in = matches!(&report.verdict,
                    Verdict::Refused(symptom) if symptom.stage == Some(Stage::SmtpAuth));
                look.refused = Some(report.verdict);
                if at_sign_in && let Ok(mut session) = shared.open(&Login::Anonymous, deadline, None).await {
                    look.certificates = session.certificates();
                    session.farewell(shared, None).await;
                }
            }
            Ok(mut session) => {
                look.certificates = session.certificates();
                for sender in senders {
                    if session.dialogue.is_over() {
                        break;
                    }
                    session.dialogue.ask_sender(sender);
                    let report = session.run(shared, deadline, None, Some(&transcript)).await;
                    let verdict = report.unwrap_or_else(ended_early).verdict;
                    look.senders.push((sender.clone(), verdict));
                }
                session.farewell(shared, Some(&transcript)).await;
            }
        }
        look.said = transcript.said();
        look
    }
}

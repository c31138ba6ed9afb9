//! What each reply of the server leads to. Pure.

use super::super::Login;
use super::super::{RecipientVerdict, Report, Verdict};
use super::offers::Offers;
use super::sasl::{self, Mask, Mechanism};
use super::{Ask, Auth, Awaited, COMMAND_MAX, Dialogue, Words};
use crate::advice::{Local, Stage, Symptom};
use crate::config::settings::Tls;
use crate::mail::reply::Reply;
use std::collections::VecDeque;

impl Dialogue {
    pub(super) fn reply(&mut self, reply: &Reply) {
        let shown = match &self.waiting.front() {
            Some(Awaited::Auth(_)) if reply.code == 334 => {
                format!(
                    "334 {}",
                    sasl::challenge(reply.lines.first().map_or("", String::as_str))
                )
            }
            _ => reply.text(),
        };
        self.heard.push(self.mask.apply(&shown).into_owned());
        let Some(awaited) = self.waiting.pop_front() else {
            return self.unasked(reply);
        };
        if reply.code == 421 && awaited != Awaited::Greeting {
            return self.closing(reply, &awaited);
        }
        match awaited {
            Awaited::Greeting if reply.code == 220 => self.ehlo(),
            Awaited::Greeting => self.refuse(Stage::Connect, reply),
            Awaited::Ehlo if reply.is_positive() => self.ehlo_answered(reply),
            Awaited::Ehlo if matches!(reply.code, 500 | 502 | 504) && self.may_helo() => {
                self.say(Words::line(&format!("HELO {}", self.opening.helo)), Awaited::Helo);
            }
            Awaited::Helo if reply.is_positive() => self.out.push_back(Ask::Ready),
            Awaited::Ehlo | Awaited::Helo => self.refuse(Stage::Connect, reply),
            Awaited::Starttls => self.starttls_answered(reply),
            Awaited::Auth(auth) => self.auth_answered(auth, reply),
            Awaited::Rset { .. } | Awaited::Mail | Awaited::Rcpt(_) | Awaited::Data => {
                self.envelope_answered(&awaited, reply);
            }
            Awaited::Final => self.final_answered(reply),
            // Nothing was in it, so whatever the server says to it does not matter.
            Awaited::LoneDot => self.refused_whole(),
        }
    }

    /// A reply nobody asked for.
    fn unasked(&mut self, reply: &Reply) {
        let in_data = self.mail.as_ref().is_some_and(|mail| mail.in_data);
        if reply.code == 421 {
            self.closing(reply, &Awaited::Data);
        } else if in_data && reply.code >= 400 {
            // It does not want the rest; the message is not whole there, so it cannot be accepted.
            self.in_step = false;
            let symptom = self.symptom(Stage::SmtpData, reply);
            self.finish(Verdict::Refused(symptom), true);
        } else {
            self.broken(format!(
                "the server said `{}` unasked",
                self.masked(&reply.text())
            ));
        }
    }

    /// 421: the server goes away, whatever it was asked (RFC 5321 3.8).
    fn closing(&mut self, reply: &Reply, awaited: &Awaited) {
        let stage = match awaited {
            Awaited::Auth(_) => Stage::SmtpAuth,
            Awaited::Mail => Stage::SmtpMail,
            Awaited::Rcpt(_) => Stage::SmtpRcpt,
            Awaited::Data | Awaited::Final | Awaited::LoneDot => Stage::SmtpData,
            _ => Stage::Connect,
        };
        self.in_step = false;
        self.hung_up = *awaited != Awaited::Final;
        let verdict = Verdict::Refused(self.symptom(stage, reply));
        self.finish(verdict, true);
    }

    pub(super) fn ehlo(&mut self) {
        self.say(Words::line(&format!("EHLO {}", self.opening.helo)), Awaited::Ehlo);
    }

    fn may_helo(&self) -> bool {
        self.opening.tls != Tls::Starttls && matches!(self.opening.login, Login::Anonymous)
    }

    fn ehlo_answered(&mut self, reply: &Reply) {
        self.offers = Offers::read(reply);
        if self.opening.tls == Tls::Starttls && !self.secured {
            if self.offers.starttls {
                self.say(Words::line("STARTTLS"), Awaited::Starttls);
            } else {
                let text = format!("{} does not offer STARTTLS", self.opening.host);
                self.refuse_ourselves(Stage::Tls, Local::StarttlsMissing, text);
            }
            return;
        }
        self.sign_in();
    }

    fn starttls_answered(&mut self, reply: &Reply) {
        if reply.code != 220 {
            return self.refuse(Stage::Tls, reply);
        }
        if !self.reader.is_empty() {
            self.in_step = false;
            let text = format!(
                "{} sent plain text behind its reply to STARTTLS",
                self.opening.host
            );
            return self.refuse_ourselves(Stage::Tls, Local::StarttlsInjected, text);
        }
        self.out.push_back(Ask::Secure);
    }

    fn sign_in(&mut self) {
        let login = &self.opening.login;
        if matches!(login, Login::Anonymous) {
            self.out.push_back(Ask::Ready);
            return;
        }
        if !(self.secured || self.opening.loopback) {
            let text = format!(
                "the connection to {} is not encrypted, so the credential stays here",
                self.opening.host
            );
            return self.refuse_ourselves(Stage::SmtpAuth, Local::CredentialInClear, text);
        }
        if !sasl::is_clean(login) {
            let text = "login name or secret holds a control character".to_owned();
            return self.refuse_ourselves(Stage::SmtpAuth, Local::CredentialCharacters, text);
        }
        let Some(mechanism) = Mechanism::choose(login, &self.offers.mechanisms) else {
            let offered = match self.offers.mechanisms.join(" ") {
                none if none.is_empty() => "no sign-in at all".to_owned(),
                some => some,
            };
            let text = format!("{} offers {offered}", self.opening.host);
            return self.refuse_ourselves(Stage::SmtpAuth, Local::MechanismMissing, text);
        };
        let mut answers: VecDeque<String> = mechanism
            .answers(login, &self.opening.host, self.opening.port)
            .into();
        self.mask = Mask::of(login, answers.make_contiguous());
        let mut command = format!("AUTH {}", mechanism.name());
        let mut shown = command.clone();
        if mechanism == Mechanism::Plain
            && command.len() + 1 + answers[0].len() + 2 <= COMMAND_MAX
            && let Some(answer) = answers.pop_front()
        {
            command.push_str(&format!(" {answer}"));
            shown.push_str(" ***");
        }
        let awaited = Awaited::Auth(Auth::Going { mechanism, answers });
        self.say(Words::secret(&command, &shown), awaited);
    }

    fn auth_answered(&mut self, auth: Auth, reply: &Reply) {
        match auth {
            Auth::Refused { challenge } => {
                let symptom = self.challenged(&challenge, Some(reply));
                self.finish(Verdict::Refused(symptom), true);
            }
            Auth::Going {
                mut answers,
                mechanism,
            } => match (reply.code, answers.pop_front()) {
                (200..=299, None) => self.out.push_back(Ask::Ready),
                (334, Some(answer)) => {
                    let shown = format!("*** ({} bytes)", answer.len());
                    self.say(
                        Words::secret(&answer, &shown),
                        Awaited::Auth(Auth::Going { mechanism, answers }),
                    );
                }
                (334, None) => {
                    let challenge = sasl::challenge(reply.lines.first().map_or("", String::as_str));
                    self.say(
                        Words::line(mechanism.give_in()),
                        Awaited::Auth(Auth::Refused { challenge }),
                    );
                }
                (400..=599, _) => self.refuse(Stage::SmtpAuth, reply),
                _ => self.broken(format!(
                    "the server said `{}` in the middle of signing in",
                    self.masked(&reply.text())
                )),
            },
        }
    }

    /// The refusal of a token with the words of the challenge before it. Without a final reply, or
    /// with a senseless one, the challenge alone counts.
    pub(super) fn challenged(&self, challenge: &str, reply: Option<&Reply>) -> Symptom {
        let challenge = self.masked(challenge);
        let reply = reply.filter(|reply| reply.code >= 400);
        let mut symptom = match reply {
            Some(reply) => self.symptom(Stage::SmtpAuth, reply),
            None => Symptom {
                stage: Some(Stage::SmtpAuth),
                code: Some(334),
                ..Symptom::default()
            },
        };
        symptom.text = match reply {
            Some(_) => format!("{} / 334 {challenge}", symptom.text),
            None => format!("334 {challenge}"),
        };
        symptom
    }

    fn envelope_answered(&mut self, awaited: &Awaited, reply: &Reply) {
        let Some(mut mail) = self.mail.take() else {
            return self.broken("a reply to a command that was not given".to_owned());
        };
        match *awaited {
            Awaited::Rset { .. } if reply.is_positive() => self.dirty = false,
            Awaited::Rset { .. } => {
                self.mail = Some(mail);
                self.refuse(Stage::Connect, reply);
                // A server that will not even start over has nothing against this mail.
                self.hung_up = true;
                return;
            }
            Awaited::Mail if reply.is_positive() => {
                self.dirty = true;
                if let Some(answer) = &mut mail.only_asked {
                    *answer = self.masked(&reply.text());
                }
            }
            Awaited::Mail => mail.refused = Some(self.symptom(Stage::SmtpMail, reply)),
            Awaited::Rcpt(_) if mail.refused.is_some() => {}
            Awaited::Rcpt(number) => {
                mail.verdicts[number] = Some(if reply.is_positive() {
                    RecipientVerdict::Accepted
                } else {
                    RecipientVerdict::Refused(self.symptom(Stage::SmtpRcpt, reply))
                });
            }
            _ => {
                let wanted = mail.refused.is_none() && mail.any_accepted();
                let in_data = reply.code == 354;
                mail.in_data = in_data && wanted;
                self.mail = Some(mail);
                return match (in_data, wanted) {
                    (true, true) => self.out.push_back(Ask::Body),
                    // It waits for a message that nobody is to get: an empty one ends that.
                    (true, false) => self.dot(Awaited::LoneDot),
                    (false, false) => self.refused_whole(),
                    (false, true) if reply.code >= 400 => {
                        let symptom = self.symptom(Stage::SmtpData, reply);
                        self.finish(Verdict::Refused(symptom), false);
                    }
                    (false, true) => self.broken(format!(
                        "the server said `{}` to DATA",
                        self.masked(&reply.text())
                    )),
                };
            }
        }
        self.mail = Some(mail);
        self.go_on();
    }

    /// Sends the next group of the envelope, once every reply to the last one is there.
    pub(super) fn go_on(&mut self) {
        let Some(mail) = &mut self.mail else { return };
        if !self.waiting.is_empty() {
            return;
        }
        let for_nobody = |group: &[Awaited]| group == [Awaited::Data] && !mail.any_accepted();
        match mail.groups.front() {
            Some((_, group)) if mail.refused.is_none() && !for_nobody(group) => {}
            _ => return self.refused_whole(),
        }
        if let Some((words, awaited)) = mail.groups.pop_front() {
            self.waiting.extend(awaited);
            self.out.push_back(Ask::Write(words));
        }
    }

    /// Sender or every recipient was refused.
    fn refused_whole(&mut self) {
        let asked = self.mail.as_ref().filter(|mail| mail.refused.is_none());
        if let Some(reply) = asked.and_then(|mail| mail.only_asked.clone()) {
            return self.finish(Verdict::Accepted { reply }, false);
        }
        let symptom = self.mail.as_mut().and_then(|mail| {
            let by_recipient = || match mail.verdicts.iter().flatten().next() {
                Some(RecipientVerdict::Refused(symptom)) => Some(symptom.clone()),
                _ => None,
            };
            mail.refused.clone().or_else(by_recipient)
        });
        self.finish(Verdict::Refused(symptom.unwrap_or_default()), false);
    }

    fn final_answered(&mut self, reply: &Reply) {
        match reply.code {
            200..=299 => {
                self.dirty = false;
                let reply = self.masked(&reply.text());
                let Some(mail) = self.mail.take() else { return };
                let report = Report {
                    verdict: Verdict::Accepted { reply },
                    recipients: mail.decided(|_| true),
                };
                self.out.push_back(Ask::Done(report));
            }
            400..=599 => {
                let symptom = self.symptom(Stage::SmtpData, reply);
                self.finish(Verdict::Refused(symptom), false);
            }
            _ => self.broken(format!(
                "the server said `{}` to the message",
                self.masked(&reply.text())
            )),
        }
    }
}

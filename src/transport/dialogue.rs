//! The client's side of a submission session (RFC 5321, 6409), as a pure state machine: bytes in,
//! things to do out. This module opens no socket and reads no clock.
//!
//! ```text
//!  greeting -> EHLO -> [STARTTLS -> Secure -> EHLO] -> [AUTH ..] -> Ready
//!                                                                     | begin
//!      +--------------------------------------------------------------+
//!      v
//!  [RSET] MAIL RCPT.. DATA -> Body -> Gate -> `.` -> Done     (the session may be used again)
//! ```
//!
//! The driver asks [`Dialogue::ask`] what to do and tells what came of it: [`Dialogue::receive`],
//! [`secured`](Dialogue::secured), [`streamed`](Dialogue::streamed), [`passed`](Dialogue::passed),
//! [`lost`](Dialogue::lost). Every path ends in one [`Report`].
//!
//! What holds:
//! - The last bytes that commit a message, the dot, are handed out only after `passed`. Lost before:
//!   nothing was sent. Lost after, without an answer: unknown.
//! - No credential is handed out unless the connection is encrypted or ends on this machine.
//! - What came before STARTTLS is forgotten after it; bytes that came with its reply end the session.
//! - A recipient is `Accepted` only if its RCPT *and* the final dot were answered with 2xx.

mod body;
mod mail;
mod offers;
mod probe;
mod replies;
mod sasl;

pub use body::{Stuffer, Survey};

use super::{GateClosed, Login, Report, Verdict};
use crate::advice::{Local, Stage, Symptom};
use crate::config::settings::Tls;
use crate::mail::Envelope;
use crate::mail::address::Address;
use crate::mail::reply::{Reply, ReplyReader};
use mail::Mail;
use offers::Offers;
use sasl::{Mask, Mechanism};
use std::collections::VecDeque;

/// Commands of a pipelined group at most, so that neither side fills the other's buffers.
const GROUP: usize = 100;
/// Longest command line (RFC 5321 4.5.3.1.4), its end included.
const COMMAND_MAX: usize = 512;

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// What we call ourselves: a name or an address literal.
    pub helo: String,
    /// The server's name, part of OAUTHBEARER.
    pub host: String,
    /// Its port, likewise.
    pub port: u16,
    /// How the connection is to be protected.
    pub tls: Tls,
    /// The other end is this very machine.
    pub loopback: bool,
    /// With what to sign in.
    pub login: Login,
}

/// What the driver is to do next.
#[derive(Debug)]
pub enum Ask {
    /// Write these bytes, in one piece.
    Write(Words),
    /// Read, and hand over what came.
    Read(Wait),
    /// Make the connection TLS, then say [`Dialogue::secured`].
    Secure,
    /// Send the message through a [`Stuffer`] and flush, then say [`Dialogue::streamed`].
    Body,
    /// Ask the gate, then say [`Dialogue::passed`] or [`Dialogue::shut`].
    Gate,
    /// The session is open: [`Dialogue::begin`] may be said.
    Ready,
    /// That was it. [`Dialogue::is_over`] tells whether the session may be used again.
    Done(Report),
}

/// Bytes to write, and what of them may be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Words {
    /// For the wire.
    pub bytes: Vec<u8>,
    /// For a transcript, a line each, secrets masked.
    pub shown: Vec<String>,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Words").field(&self.shown).finish()
    }
}

impl Words {
    fn line(line: &str) -> Words {
        Words {
            bytes: format!("{line}\r\n").into_bytes(),
            shown: vec![line.to_owned()],
        }
    }

    fn secret(line: &str, shown: &str) -> Words {
        Words {
            shown: vec![shown.to_owned()],
            ..Words::line(line)
        }
    }

    fn add(&mut self, line: &str) {
        let Words { bytes, shown } = Words::line(line);
        self.bytes.extend(bytes);
        self.shown.extend(shown);
    }
}

/// How long a reply may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As any.
    Reply,
    /// As the one to the final dot, while the server makes the message durable.
    Final,
    /// As the first one on a connection that lay idle and may be dead.
    Probe,
}

/// A reply we wait for, by what it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Awaited {
    Greeting,
    Ehlo,
    Helo,
    Starttls,
    Auth(Auth),
    Rset { probe: bool },
    Mail,
    Rcpt(usize),
    Data,
    Final,
    LoneDot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Auth {
    /// We go on with these answers; the reply after the last one decides.
    Going {
        mechanism: Mechanism,
        answers: VecDeque<String>,
    },
    /// The server has said no in a challenge, and will say so again in a reply.
    Refused { challenge: String },
}

/// A session.
#[derive(Debug)]
pub struct Dialogue {
    opening: Opening,
    reader: ReplyReader,
    heard: Vec<String>,
    out: VecDeque<Ask>,
    waiting: VecDeque<Awaited>,
    offers: Offers,
    secured: bool,
    mask: Mask,
    mail: Option<Mail>,
    /// The next message needs RSET first.
    dirty: bool,
    over: bool,
    hung_up: bool,
    /// Server and we agree on whose turn it is, so QUIT makes sense.
    in_step: bool,
}

impl Dialogue {
    /// A session on a connection just made; for [`Tls::Implicit`] the handshake is done.
    pub fn new(opening: Opening) -> Dialogue {
        Dialogue {
            secured: opening.tls == Tls::Implicit,
            opening,
            reader: ReplyReader::default(),
            heard: Vec::new(),
            out: VecDeque::new(),
            waiting: VecDeque::from([Awaited::Greeting]),
            offers: Offers::default(),
            mask: Mask::default(),
            mail: None,
            dirty: false,
            over: false,
            hung_up: false,
            in_step: true,
        }
    }

    /// What to do now. After `Done` on a session that is not over: [`Dialogue::begin`].
    pub fn ask(&mut self) -> Ask {
        if let Some(ask) = self.out.pop_front() {
            return ask;
        }
        match self.waiting.front() {
            Some(Awaited::Final) => Ask::Read(Wait::Final),
            Some(Awaited::Rset { probe: true }) => Ask::Read(Wait::Probe),
            Some(_) => Ask::Read(Wait::Reply),
            None => Ask::Ready,
        }
    }

    /// The session cannot be used any more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// It ended because the server closed or announced that it closes, before this mail was past
    /// its gate: on a connection that had lain idle, that says nothing about this mail.
    pub fn hung_up(&self) -> bool {
        self.hung_up
    }

    /// QUIT, if saying it makes sense.
    pub fn farewell(&self) -> Option<Words> {
        let idle = self.waiting.is_empty() && self.mail.as_ref().is_none_or(|mail| !mail.in_data);
        (self.in_step && idle && !self.hung_up).then(|| Words::line("QUIT"))
    }

    /// Replies that came since the last call, for a transcript, secrets masked.
    pub fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.heard)
    }

    /// Bytes came.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.reader.feed(bytes);
        // What comes behind the last word about a mail must not change that word. Servers do say
        // `250 accepted` and `421 closing` in one breath.
        while !self.over && !matches!(self.out.back(), Some(Ask::Done(_))) {
            match self.reader.take() {
                Ok(Some(reply)) => self.reply(&reply),
                Ok(None) => break,
                Err(error) => {
                    self.heard.push(error.to_string());
                    self.broken(error.to_string());
                }
            }
        }
    }

    /// TLS is up: what was told before does not count any more (RFC 3207 4.2).
    pub fn secured(&mut self) {
        self.secured = true;
        self.offers = Offers::default();
        self.ehlo();
    }

    /// Starts a message. `idle`: the connection has lain unused for a while, so it is probed first.
    pub fn begin(&mut self, envelope: &Envelope, survey: &Survey, idle: bool) {
        self.hung_up = false;
        if !self.reader.is_empty() {
            let text = format!("{} said something unasked between two mails", self.opening.host);
            return self.lost(text, Local::Protocol, true, true);
        }
        let recipients = envelope.recipients().to_vec();
        let international = survey.utf8_headers
            || envelope.return_path().is_international()
            || recipients.iter().any(Address::is_international);
        if let Some((local, text)) = self.cannot_take(survey, international) {
            let symptom = ours(Stage::SmtpMail, local, text);
            self.out
                .push_back(Ask::Done(Report::of(Verdict::Refused(symptom))));
            return;
        }
        let mut commands = Vec::with_capacity(recipients.len() + 3);
        if idle || self.dirty {
            commands.push(("RSET".to_owned(), Awaited::Rset { probe: idle }));
        }
        let mut mail = format!("MAIL FROM:<{}>", envelope.return_path());
        if self.offers.size.is_some() {
            mail.push_str(&format!(" SIZE={}", survey.len));
        }
        if self.offers.eight_bit && survey.eight_bit {
            mail.push_str(" BODY=8BITMIME");
        }
        if international {
            mail.push_str(" SMTPUTF8");
        }
        commands.push((mail, Awaited::Mail));
        let rcpt = |(number, to): (usize, &Address)| (format!("RCPT TO:<{to}>"), Awaited::Rcpt(number));
        commands.extend(recipients.iter().enumerate().map(rcpt));
        commands.push(("DATA".to_owned(), Awaited::Data));

        let size = if self.offers.pipelining { GROUP } else { 1 };
        let mut groups: VecDeque<(Words, Vec<Awaited>)> = VecDeque::new();
        for (place, (line, awaited)) in commands.into_iter().enumerate() {
            // A probe goes alone: into a dead connection one line is enough.
            let alone =
                matches!(groups.back(), Some((_, group)) if group[0] == Awaited::Rset { probe: true });
            match groups.back_mut() {
                Some((words, group)) if group.len() < size && !alone && place > 0 => {
                    words.add(&line);
                    group.push(awaited);
                }
                _ => groups.push_back((Words::line(&line), vec![awaited])),
            }
        }
        self.mail = Some(Mail {
            verdicts: vec![None; recipients.len()],
            recipients,
            refused: None,
            groups,
            in_data: false,
            past_gate: false,
            only_asked: None,
        });
        self.go_on();
    }

    /// The whole body was written and flushed; the dot was not.
    pub fn streamed(&mut self) {
        if !self.over {
            self.out.push_back(Ask::Gate);
        }
    }

    /// The gate is open: from now on the message may have been sent.
    pub fn passed(&mut self) {
        if let Some(mail) = &mut self.mail {
            mail.past_gate = true;
        }
        self.dot(Awaited::Final);
    }

    /// The gate stayed shut. The server waits for the dot it must not get, so the session ends.
    pub fn shut(&mut self, closed: GateClosed) {
        self.finish(Verdict::GateClosed(closed), true);
    }

    /// The connection is of no use any more: closed, timed out, TLS failed. `hung_up`: by the
    /// server's doing rather than by our impatience.
    pub fn lost(&mut self, text: String, local: Local, transient: bool, hung_up: bool) {
        if self.over {
            return;
        }
        self.in_step = false;
        let past_gate = self.mail.as_ref().is_some_and(|mail| mail.past_gate);
        self.hung_up = hung_up && !past_gate;
        let verdict = match self.waiting.front() {
            _ if past_gate => Verdict::Unknown { text },
            Some(Awaited::Auth(Auth::Refused { challenge })) => {
                Verdict::Refused(self.challenged(&challenge.clone(), None))
            }
            _ => Verdict::Unreached {
                text,
                transient,
                local,
            },
        };
        self.finish(verdict, true);
    }

    fn refuse(&mut self, stage: Stage, reply: &Reply) {
        let symptom = self.symptom(stage, reply);
        self.finish(Verdict::Refused(symptom), true);
    }

    fn refuse_ourselves(&mut self, stage: Stage, local: Local, text: String) {
        self.finish(Verdict::Refused(ours(stage, local, text)), true);
    }

    /// What came is not SMTP, or not at this point.
    fn broken(&mut self, text: String) {
        self.lost(text, Local::Protocol, true, false);
    }

    fn finish(&mut self, verdict: Verdict, over: bool) {
        self.over |= over;
        self.waiting.clear();
        self.out.clear();
        let mail = self.mail.take();
        if let Some(mail) = &mail {
            self.in_step &= !mail.in_data || mail.past_gate;
        }
        let recipients = mail.map(|mail| mail.refused_ones()).unwrap_or_default();
        self.out.push_back(Ask::Done(Report { verdict, recipients }));
    }

    fn say(&mut self, words: Words, awaited: Awaited) {
        self.waiting.push_back(awaited);
        self.out.push_back(Ask::Write(words));
    }

    fn dot(&mut self, awaited: Awaited) {
        self.say(Words::line("."), awaited);
    }

    fn masked(&self, text: &str) -> String {
        self.mask.apply(text).into_owned()
    }

    fn symptom(&self, stage: Stage, reply: &Reply) -> Symptom {
        Symptom {
            stage: Some(stage),
            code: Some(reply.code),
            enhanced: reply.enhanced.clone(),
            text: self.masked(&reply.text()),
            ..Symptom::default()
        }
    }

    /// Why the server cannot take this message, as far as EHLO told.
    fn cannot_take(&self, survey: &Survey, international: bool) -> Option<(Local, String)> {
        let host = &self.opening.host;
        match self.offers.size {
            Some(limit) if limit > 0 && survey.len > limit => {
                let text = format!("the message has {} bytes, {host} takes {limit}", survey.len);
                return Some((Local::MessageTooBig, text));
            }
            _ => {}
        }
        if international && !self.offers.smtputf8 {
            let text = format!("an address or header needs SMTPUTF8, which {host} does not offer");
            return Some((Local::Smtputf8Unsupported, text));
        }
        if survey.eight_bit && !self.offers.eight_bit {
            let text = format!("the message needs 8BITMIME, which {host} does not offer");
            return Some((Local::EightBitUnsupported, text));
        }
        None
    }
}

fn ours(stage: Stage, local: Local, text: String) -> Symptom {
    Symptom {
        stage: Some(stage),
        local: Some(local),
        text,
        ..Symptom::default()
    }
}

#[cfg(test)]
mod tests;

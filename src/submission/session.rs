//! The server's side of SMTP (RFC 5321, 6409), without a socket: what a client says goes in, what is to be done comes
//! out. Whoever drives it has the connection, the clock, the passwords and the store.
//!
//! ```text
//!              .-- line ---> [ Session ] --- Say, Secure, SignIn, Recipient, Read, Take, HangUp
//!   driver ----+-- secured, signed_in, recipient, message, taken
//! ```
//!
//! At most one thing is asked for at a time; the next line waits until it was answered.

use crate::config::secret::Secret;
use crate::mail::address::Address;
use crate::submission::policy::{Refusal, What};
use crate::submission::wire::{Crooked, Ended};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Most recipients of one mail (RFC 5321 4.5.3.1.8 asks for 100).
const RECIPIENTS: usize = 1_000;
/// Mistakes after which we hang up.
const MISTAKES: u32 = 20;
/// Wrong passwords after which we hang up.
const ATTEMPTS: u32 = 3;

/// What a listener offers, and asks for, on this connection.
#[derive(Clone, Debug)]
pub struct Terms {
    /// This machine's name.
    pub host: String,
    /// It has a certificate: STARTTLS is offered.
    pub tls: bool,
    /// Nobody hands in without a password.
    pub sign_in: bool,
    /// The client is on this machine, so nobody reads along.
    pub here: bool,
    /// Largest message, bytes.
    pub max_size: u64,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Do {
    /// Write this: lines with their ends.
    Say(String),
    /// Make the connection TLS, then say [`Session::secured`]. What was read and not used is an attack.
    Secure,
    /// Ask whether this is the password of that user, then say [`Session::signed_in`].
    SignIn {
        /// The login name.
        user: String,
        /// What was given.
        password: Secret,
    },
    /// Ask the policy about this recipient, then say [`Session::recipient`].
    Recipient(String),
    /// Read a message, then say [`Session::message`]. What was read before is an attack.
    Read,
    /// Keep this mail, then say [`Session::taken`].
    Take(Mail),
    /// That was it.
    HangUp,
}

/// A mail handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// MAIL FROM; empty for the null sender.
    pub from: String,
    /// RCPT TO, those that were accepted.
    pub to: Vec<String>,
    /// Who signed in.
    pub user: Option<String>,
    /// The message, dots unstuffed.
    pub bytes: Vec<u8>,
}

/// What became of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is on disk, as this entry.
    Kept(i64),
    /// Not now.
    Later(String),
    /// Never.
    Refused(Refusal),
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stands {
    /// The next line is a command.
    Commands,
    /// The next line answers a challenge.
    Plain,
    LoginUser,
    LoginPassword(String),
    /// Something was asked of the driver.
    Asked,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    terms: Terms,
    stands: Stands,
    greeted: bool,
    extended: bool,
    secured: bool,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
    mistakes: u32,
    attempts: u32,
}

/// Who speaks so is a browser that was led here (and what follows was written by somebody else).
const FOREIGN: [&str; 10] = [
    "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "HOST:",
];

impl Session {
    /// A session on a connection just accepted, and its greeting.
    pub fn new(terms: Terms) -> (Session, Do) {
        let greeting = Do::Say(format!("220 {} ESMTP tidings\r\n", terms.host));
        let session = Session {
            terms,
            stands: Stands::Commands,
            greeted: false,
            extended: false,
            secured: false,
            user: None,
            from: None,
            to: Vec::new(),
            mistakes: 0,
            attempts: 0,
        };
        (session, greeting)
    }

    /// Who signed in.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The words for a client that was silent for too long, or came when nobody more is served.
    pub fn farewell(host: &str, why: &str) -> String {
        format!("421 4.4.2 {host} {why}\r\n")
    }

    /// A line came that is none.
    pub fn crooked(&self, why: Crooked) -> Vec<Do> {
        let text = match why {
            Crooked::Bare => "554 5.5.2 a line ends with CRLF and nothing else\r\n",
            Crooked::Long => "500 5.5.2 this line is too long\r\n",
        };
        vec![Do::Say(text.to_owned()), Do::HangUp]
    }

    /// Something came before it was asked for: whoever sent it did not read what we said.
    pub fn too_early(&self) -> Vec<Do> {
        let text = "554 5.5.0 you spoke before it was your turn\r\n";
        vec![Do::Say(text.to_owned()), Do::HangUp]
    }

    /// A line came.
    pub fn line(&mut self, line: &[u8]) -> Vec<Do> {
        match std::mem::replace(&mut self.stands, Stands::Commands) {
            Stands::Commands => self.command(line),
            Stands::Plain => match self.answer(line) {
                Some(answer) => self.plain(&answer),
                None => self.mistake("501 5.5.2 the sign-in was given up"),
            },
            Stands::LoginUser => match self
                .answer(line)
                .and_then(|answer| String::from_utf8(answer).ok())
            {
                Some(user) => {
                    self.stands = Stands::LoginPassword(user);
                    say("334 UGFzc3dvcmQ6")
                }
                None => self.mistake("501 5.5.2 the sign-in was given up"),
            },
            Stands::LoginPassword(user) => match self.answer(line) {
                Some(password) => self.sign_in(user, password),
                None => self.mistake("501 5.5.2 the sign-in was given up"),
            },
            Stands::Asked => self.too_early(),
        }
    }

    /// The connection is TLS now. What was said before is forgotten (RFC 3207 4.2).
    pub fn secured(&mut self) -> Vec<Do> {
        let (terms, mistakes) = (self.terms.clone(), self.mistakes);
        (*self, _) = Session::new(terms);
        self.mistakes = mistakes;
        self.secured = true;
        Vec::new()
    }

    /// Whether the password was right; `None`: nobody can say now.
    pub fn signed_in(&mut self, user: String, right: Option<bool>) -> Vec<Do> {
        self.stands = Stands::Commands;
        match right {
            Some(true) => {
                self.user = Some(user);
                say("235 2.7.0 signed in")
            }
            Some(false) => {
                self.attempts += 1;
                let mut all = say("535 5.7.8 user or password is wrong");
                if self.attempts >= ATTEMPTS {
                    all.push(Do::HangUp);
                }
                all
            }
            None => say("454 4.7.0 the password cannot be checked now"),
        }
    }

    /// What the policy says of the recipient that was asked about.
    pub fn recipient(&mut self, text: String, verdict: Result<(), Refusal>) -> Vec<Do> {
        self.stands = Stands::Commands;
        match verdict {
            Ok(()) => {
                self.to.push(text);
                say("250 2.1.5 recipient fine")
            }
            Err(refusal) => {
                let code = match refusal.what {
                    What::Unknown => "550 5.1.1",
                    _ => "550 5.7.1",
                };
                self.mistake(&format!("{code} {}", plain(&refusal.text)))
            }
        }
    }

    /// The message came, to its end.
    pub fn message(&mut self, ended: Ended) -> Vec<Do> {
        let from = self.from.take().unwrap_or_default();
        let to = std::mem::take(&mut self.to);
        self.stands = Stands::Commands;
        match ended {
            Ended::Whole(bytes) => {
                self.stands = Stands::Asked;
                vec![Do::Take(Mail {
                    from,
                    to,
                    user: self.user.clone(),
                    bytes,
                })]
            }
            Ended::TooLarge => self.mistake(&format!("552 5.3.4 larger than {} bytes", self.terms.max_size)),
            Ended::Bare => {
                self.mistake("554 5.6.0 not taken: it has a bare CR or LF, or a NUL; lines end with CRLF")
            }
        }
    }

    /// What became of the mail.
    pub fn taken(&mut self, taken: Taken) -> Vec<Do> {
        self.stands = Stands::Commands;
        match taken {
            Taken::Kept(entry) => say(&format!("250 2.0.0 kept as entry {entry}")),
            Taken::Later(why) => say(&format!("451 4.3.0 not taken: {}", plain(&why))),
            Taken::Refused(refusal) => {
                let code = match refusal.what {
                    What::Sender | What::Forbidden => "550 5.7.1",
                    What::Unknown => "550 5.1.1",
                    What::Nobody => "554 5.5.1",
                    What::Message => "554 5.6.0",
                    What::Size => "552 5.3.4",
                };
                self.mistake(&format!("{code} not taken: {}", plain(&refusal.text)))
            }
        }
    }

    fn command(&mut self, line: &[u8]) -> Vec<Do> {
        let Ok(line) = std::str::from_utf8(line) else {
            return self.mistake("500 5.5.2 this is not understood");
        };
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (verb, rest) = (verb.to_ascii_uppercase(), rest.trim());
        if FOREIGN.contains(&verb.as_str()) {
            return vec![
                Do::Say("554 5.5.0 this is no web server\r\n".to_owned()),
                Do::HangUp,
            ];
        }
        match verb.as_str() {
            "HELO" | "EHLO" if rest.is_empty() => self.mistake("501 5.5.4 say who you are"),
            "HELO" | "EHLO" => {
                self.forget();
                self.greeted = true;
                self.extended = verb == "EHLO";
                match self.extended {
                    true => vec![Do::Say(self.offers())],
                    false => say(&format!("250 {}", self.terms.host)),
                }
            }
            "NOOP" => say("250 2.0.0 fine"),
            "RSET" => {
                self.forget();
                say("250 2.0.0 forgotten")
            }
            "QUIT" => {
                let mut all = say("221 2.0.0 goodbye");
                all.push(Do::HangUp);
                all
            }
            "HELP" => say("214 2.0.0 EHLO STARTTLS AUTH MAIL RCPT DATA RSET NOOP QUIT"),
            "VRFY" => say("252 2.1.5 send, and see"),
            "STARTTLS" if !self.terms.tls => self.mistake("502 5.5.1 not offered"),
            "STARTTLS" if self.secured => self.mistake("503 5.5.1 it is TLS already"),
            "STARTTLS" if !rest.is_empty() => self.mistake("501 5.5.4 no parameters, please"),
            "STARTTLS" => {
                self.stands = Stands::Asked;
                let mut all = say("220 2.0.0 go ahead");
                all.push(Do::Secure);
                all
            }
            "AUTH" => self.auth(rest),
            "MAIL" => self.mail(rest),
            "RCPT" => self.rcpt(rest),
            "DATA" if self.from.is_none() => self.mistake("503 5.5.1 MAIL first"),
            "DATA" if self.to.is_empty() => self.mistake("554 5.5.1 no recipient was accepted"),
            "DATA" if !rest.is_empty() => self.mistake("501 5.5.4 no parameters, please"),
            "DATA" => {
                self.stands = Stands::Asked;
                let mut all = say("354 end with a line that is only a dot");
                all.push(Do::Read);
                all
            }
            _ => self.mistake("500 5.5.2 this is not understood"),
        }
    }

    fn forget(&mut self) {
        self.from = None;
        self.to.clear();
    }

    /// A reply to something that was wrong; after too many we hang up.
    fn mistake(&mut self, reply: &str) -> Vec<Do> {
        self.mistakes += 1;
        let mut all = say(reply);
        if self.mistakes >= MISTAKES {
            all.extend(say("421 4.7.0 too many mistakes"));
            all.push(Do::HangUp);
        }
        all
    }

    /// Passwords are taken where nobody reads along.
    fn may_sign_in(&self) -> bool {
        self.terms.sign_in && (self.secured || self.terms.here)
    }

    fn offers(&self) -> String {
        let mut offers = vec![
            self.terms.host.clone(),
            "PIPELINING".to_owned(),
            format!("SIZE {}", self.terms.max_size),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
        ];
        if self.terms.tls && !self.secured {
            offers.push("STARTTLS".to_owned());
        }
        if self.may_sign_in() {
            offers.push("AUTH PLAIN LOGIN".to_owned());
        }
        let last = offers.len() - 1;
        let lines = offers.iter().enumerate();
        lines
            .map(|(place, offer)| format!("250{}{offer}\r\n", if place == last { ' ' } else { '-' }))
            .collect()
    }

    fn auth(&mut self, rest: &str) -> Vec<Do> {
        if !self.terms.sign_in {
            return self.mistake("503 5.5.1 nobody signs in here");
        }
        if !self.may_sign_in() {
            return self.mistake("538 5.7.11 STARTTLS first");
        }
        if self.user.is_some() || self.from.is_some() {
            return self.mistake("503 5.5.1 not now");
        }
        let (mechanism, initial) = match rest.split_once(' ') {
            Some((mechanism, initial)) => (mechanism, Some(initial.trim())),
            None => (rest, None),
        };
        match (mechanism.to_ascii_uppercase().as_str(), initial) {
            ("PLAIN", None) => {
                self.stands = Stands::Plain;
                say("334 ")
            }
            ("PLAIN", Some(initial)) => match decode(initial.as_bytes()) {
                Some(answer) => self.plain(&answer),
                None => self.mistake("501 5.5.2 not understood"),
            },
            ("LOGIN", None) => {
                self.stands = Stands::LoginUser;
                say("334 VXNlcm5hbWU6")
            }
            ("LOGIN", Some(initial)) => {
                match decode(initial.as_bytes()).and_then(|user| String::from_utf8(user).ok()) {
                    Some(user) => {
                        self.stands = Stands::LoginPassword(user);
                        say("334 UGFzc3dvcmQ6")
                    }
                    None => self.mistake("501 5.5.2 not understood"),
                }
            }
            _ => self.mistake("504 5.5.4 PLAIN or LOGIN"),
        }
    }

    /// The answer to a challenge; `*` gives up.
    fn answer(&self, line: &[u8]) -> Option<Vec<u8>> {
        if line == b"*" { None } else { decode(line) }
    }

    /// `[for whom] NUL user NUL password` (RFC 4616).
    fn plain(&mut self, answer: &[u8]) -> Vec<Do> {
        let parts: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
        let [whom, user, password] = parts.as_slice() else {
            return self.mistake("501 5.5.2 not understood");
        };
        let Ok(user) = std::str::from_utf8(user) else {
            return self.mistake("501 5.5.2 not understood");
        };
        if !whom.is_empty() && *whom != user.as_bytes() {
            return self.mistake("535 5.7.8 nobody signs in for others here");
        }
        self.sign_in(user.to_owned(), password.to_vec())
    }

    fn sign_in(&mut self, user: String, password: Vec<u8>) -> Vec<Do> {
        let Ok(password) = String::from_utf8(password) else {
            return self.signed_in(user, Some(false));
        };
        self.stands = Stands::Asked;
        let password = Secret::new(password);
        vec![Do::SignIn { user, password }]
    }

    fn mail(&mut self, rest: &str) -> Vec<Do> {
        if !self.greeted {
            return self.mistake("503 5.5.1 EHLO first");
        }
        if self.terms.sign_in && self.user.is_none() {
            return match self.may_sign_in() {
                true => self.mistake("530 5.7.0 sign in first"),
                false => self.mistake("530 5.7.0 STARTTLS first"),
            };
        }
        if self.from.is_some() {
            return self.mistake("503 5.5.1 a mail is begun already");
        }
        let Some((path, parameters)) = path(rest, "FROM:") else {
            return self.mistake("501 5.5.4 write MAIL FROM:<address>");
        };
        for parameter in parameters.split_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name.to_ascii_uppercase().as_str() {
                "SIZE" => match value.parse::<u64>() {
                    Ok(size) if size > self.terms.max_size => {
                        let most = self.terms.max_size;
                        return self.mistake(&format!("552 5.3.4 larger than {most} bytes"));
                    }
                    Ok(_) => {}
                    Err(_) => return self.mistake("501 5.5.4 this is no size"),
                },
                "BODY" | "SMTPUTF8" | "AUTH" if self.extended => {}
                _ => return self.mistake("555 5.5.4 this parameter is not known here"),
            }
        }
        if !path.is_empty() && path.contains('@') && path.parse::<Address>().is_err() {
            return self.mistake("553 5.1.7 this is no address");
        }
        self.from = Some(path);
        say("250 2.1.0 sender fine")
    }

    fn rcpt(&mut self, rest: &str) -> Vec<Do> {
        if self.from.is_none() {
            return self.mistake("503 5.5.1 MAIL first");
        }
        if self.to.len() >= RECIPIENTS {
            return say("452 4.5.3 too many recipients");
        }
        match path(rest, "TO:") {
            Some((path, "")) if !path.is_empty() => {
                self.stands = Stands::Asked;
                vec![Do::Recipient(path)]
            }
            Some((_, parameters)) if !parameters.is_empty() => {
                self.mistake("555 5.5.4 this parameter is not known here")
            }
            _ => self.mistake("501 5.5.4 write RCPT TO:<address>"),
        }
    }
}

fn say(reply: &str) -> Vec<Do> {
    vec![Do::Say(format!("{reply}\r\n"))]
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    // An empty initial answer is written as `=` (RFC 4954 4).
    if text == b"=" {
        return Some(Vec::new());
    }
    STANDARD.decode(text).ok()
}

/// One line of printable ASCII: what is said to a client holds words of strangers.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .take(400)
        .collect()
}

/// `FROM:<address> parameters`; some put a space before the bracket, and some leave the brackets out.
fn path<'a>(rest: &'a str, word: &str) -> Option<(String, &'a str)> {
    let found = rest
        .get(..word.len())
        .filter(|found| found.eq_ignore_ascii_case(word))?;
    let rest = rest[found.len()..].trim_start();
    if let Some(inner) = rest.strip_prefix('<') {
        // A quoted local part may hold a bracket.
        let mut quoted = false;
        let end = inner.char_indices().find(|(place, c)| match c {
            '"' => {
                quoted = !quoted || inner[..*place].ends_with('\\');
                false
            }
            '>' => !quoted,
            _ => false,
        })?;
        let (path, behind) = (&inner[..end.0], &inner[end.0 + 1..]);
        let fine = behind.is_empty() || behind.starts_with(' ');
        // A source route is ignored (RFC 5321 appendix C).
        let path = match path.strip_prefix('@').and_then(|route| route.split_once(':')) {
            Some((_, address)) => address,
            None => path,
        };
        return (fine && !path.contains(char::is_control)).then(|| (path.to_owned(), behind.trim()));
    }
    let (path, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    let fine = !path.is_empty() && !path.contains(['<', '>', '"']) && !path.contains(char::is_control);
    fine.then(|| (path.to_owned(), behind.trim()))
}

#[cfg(test)]
mod tests;

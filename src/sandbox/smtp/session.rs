//! One connection of the sandbox server.

use super::faults::{Act, At, Faults};
use super::{AuthRefusal, Received, Shared};
use crate::config::settings::Tls;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// Longest command line or answer to a challenge we read.
const LINE_MAX: usize = 64 * 1024;
/// Command lines kept of one connection.
const HEARD_MAX: usize = 1000;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Ends a session, for good or ill.
fn cut<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionAborted.into())
}

pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, number: usize) {
    let _ = stream.set_nodelay(true);
    let faults = &shared.settings.faults;
    let faults = faults.get(number).or(faults.last()).cloned().unwrap_or_default();
    let mut session = Session {
        pipe: Pipe {
            stream: None,
            buffer: Vec::new(),
            read: 0,
            written: 0,
            faults: faults.clone(),
        },
        shared: Arc::clone(&shared),
        faults,
        number,
        encrypted: false,
        who: None,
    };
    let mut cuts = shared.cuts.subscribe();
    tokio::select! {
        _ = session.run(stream) => {}
        _ = cuts.changed() => {}
    }
    let mut kept = shared.kept();
    kept.now = kept.now.saturating_sub(1);
    if let Some(who) = session.who
        && let Some(open) = kept.open.get_mut(&who.mailbox)
    {
        *open = open.saturating_sub(1);
    }
}

/// Bytes in and out, counted, and cut where a fault says so.
struct Pipe {
    stream: Option<Box<dyn Stream>>,
    buffer: Vec<u8>,
    read: u64,
    written: u64,
    faults: Faults,
}

impl Pipe {
    fn stream(&mut self) -> io::Result<&mut Box<dyn Stream>> {
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        let left = self
            .faults
            .cut_after_read
            .map_or(u64::MAX, |cut| cut.saturating_sub(self.read));
        let room = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if room == 0 {
            return cut();
        }
        let read = self.stream()?.read(&mut piece[..room]).await?;
        if read == 0 {
            return cut();
        }
        self.read += read as u64;
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(())
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.buffer[looked..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=looked + end).collect();
                while matches!(line.last(), Some(b'\r' | b'\n')) {
                    line.pop();
                }
                return Ok(line);
            }
            looked = self.buffer.len();
            if looked > LINE_MAX {
                return cut();
            }
            self.fill().await?;
        }
    }

    /// The message, up to the line that is only a dot.
    async fn message(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        // Where a line begins, and from where on its end has not been looked for.
        let (mut start, mut looked) = (0, 0);
        loop {
            if self.buffer[start..].starts_with(b".\r\n") {
                message.extend(unstuffed(&self.buffer[..start]));
                self.buffer.drain(..start + 3);
                return Ok(message);
            }
            match self.buffer[looked..].windows(2).position(|pair| pair == b"\r\n") {
                Some(end) => {
                    start = looked + end + 2;
                    looked = start;
                }
                None => {
                    message.extend(unstuffed(&self.buffer[..start]));
                    self.buffer.drain(..start);
                    // A CR at the end may be half of a line end.
                    (start, looked) = (0, self.buffer.len().saturating_sub(1));
                    self.fill().await?;
                }
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self
            .faults
            .cut_after_written
            .map_or(u64::MAX, |cut| cut.saturating_sub(self.written));
        let room = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.stream()?.write_all(&bytes[..room]).await?;
        self.stream()?.flush().await?;
        self.written += room as u64;
        if room < bytes.len() { cut() } else { Ok(()) }
    }
}

/// Whole lines without the dot that was put before a dot.
fn unstuffed(lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.len());
    let mut at_start = true;
    for (place, byte) in lines.iter().enumerate() {
        if !(at_start && *byte == b'.') {
            out.push(*byte);
        }
        at_start = *byte == b'\n' && place > 0 && lines[place - 1] == b'\r';
    }
    out
}

struct Who {
    account: String,
    mailbox: String,
    mechanism: String,
    too_many: bool,
}

struct Session {
    pipe: Pipe,
    shared: Arc<Shared>,
    faults: Faults,
    number: usize,
    encrypted: bool,
    who: Option<Who>,
}

/// What MAIL and RCPT have said so far.
#[derive(Default)]
struct Envelope {
    from: Option<String>,
    to: Vec<String>,
}

impl Session {
    async fn run(&mut self, stream: TcpStream) -> io::Result<()> {
        if self.shared.settings.tls == Tls::Implicit {
            self.encrypt(Box::new(stream)).await?;
        } else {
            self.pipe.stream = Some(Box::new(stream));
        }
        self.say(&At::Greeting, "220 sandbox ready").await?;
        let mut envelope = Envelope::default();
        loop {
            let line = self.command().await?;
            let place = At::Line(line.clone());
            let upper = line.to_ascii_uppercase();
            let verb = upper.split(' ').next().unwrap_or_default();
            let signed_in = self.who.is_some() || self.shared.settings.anonymous;
            match verb {
                "EHLO" => {
                    envelope = Envelope::default();
                    let offers = self.offers();
                    self.say(&place, &offers).await?;
                }
                "HELO" => {
                    self.say(&place, "250 sandbox").await?;
                }
                "NOOP" => {
                    self.say(&place, "250 2.0.0 fine").await?;
                }
                "RSET" => {
                    envelope = Envelope::default();
                    self.say(&place, "250 2.0.0 forgotten").await?;
                }
                "QUIT" => {
                    self.say(&place, "221 2.0.0 goodbye").await?;
                    return Ok(());
                }
                "STARTTLS" if self.shared.settings.tls == Tls::Starttls && !self.encrypted => {
                    if !self.say(&place, "220 2.0.0 go ahead").await?.starts_with("220") {
                        continue;
                    }
                    let stream = self.pipe.stream.take();
                    self.pipe.buffer.clear();
                    let Some(stream) = stream else { return cut() };
                    self.encrypt(stream).await?;
                }
                "AUTH" if self.may_sign_in() => self.auth(&line, &place).await?,
                "MAIL" if !signed_in => {
                    let reply = "530 5.7.57 Client not authenticated to send mail. [AM0PR01CA0001]";
                    self.say(&place, reply).await?;
                }
                "MAIL" if envelope.from.is_some() => {
                    self.say(&place, "503 5.5.1 nested MAIL command").await?;
                }
                "MAIL" => {
                    if self.say(&place, "250 2.1.0 sender fine").await?.starts_with('2') {
                        envelope.from = Some(path(&line));
                    }
                }
                "RCPT" if envelope.from.is_none() => {
                    self.say(&place, "503 5.5.1 MAIL first").await?;
                }
                "RCPT" => {
                    if self
                        .say(&place, "250 2.1.5 recipient fine")
                        .await?
                        .starts_with('2')
                    {
                        envelope.to.push(path(&line));
                    }
                }
                "DATA" => self.data(&place, std::mem::take(&mut envelope)).await?,
                _ => {
                    self.say(&place, "502 5.5.2 not known here").await?;
                }
            }
        }
    }

    async fn encrypt(&mut self, stream: Box<dyn Stream>) -> io::Result<()> {
        let Some(config) = self.shared.settings.certificate.clone() else {
            return cut();
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        self.pipe.stream = Some(Box::new(stream));
        self.encrypted = true;
        Ok(())
    }

    /// A command line, with what is no UTF-8 replaced.
    async fn command(&mut self) -> io::Result<String> {
        let line = String::from_utf8_lossy(&self.pipe.line().await?).into_owned();
        if self.shared.settings.record {
            let mut kept = self.shared.kept();
            if kept.heard[self.number].len() < HEARD_MAX {
                kept.heard[self.number].push(line.clone());
            }
        }
        Ok(line)
    }

    /// Replies, unless a fault says otherwise. What was replied in the end.
    async fn say(&mut self, place: &At, reply: &str) -> io::Result<String> {
        let said = match self.faults.find(place).cloned() {
            None => reply.to_owned(),
            Some(Act::Say(other)) => other,
            Some(Act::Append(text)) => {
                self.pipe.write(format!("{reply}\r\n{text}").as_bytes()).await?;
                return Ok(reply.to_owned());
            }
            Some(Act::Wait(time)) => {
                tokio::time::sleep(time).await;
                reply.to_owned()
            }
            Some(Act::Cut) => return cut(),
            Some(Act::EndlessLine) => loop {
                self.pipe.write(&[b'2'; 8192]).await?;
            },
            Some(Act::EndlessReply) => loop {
                self.pipe.write(b"250-more to come\r\n").await?;
            },
            Some(Act::Drip(time)) => loop {
                self.pipe.write(b"2").await?;
                tokio::time::sleep(time).await;
            },
        };
        self.pipe.write(format!("{said}\r\n").as_bytes()).await?;
        if said.starts_with("421") { cut() } else { Ok(said) }
    }

    fn may_sign_in(&self) -> bool {
        self.encrypted || self.shared.settings.tls == Tls::None
    }

    fn offers(&self) -> String {
        let settings = &self.shared.settings;
        let mut lines = vec!["sandbox at your service".to_owned()];
        let offered = settings
            .offers
            .iter()
            .filter(|offer| self.may_sign_in() || !offer.starts_with("AUTH"));
        lines.extend(offered.cloned());
        if settings.tls == Tls::Starttls && !self.encrypted {
            lines.push("STARTTLS".to_owned());
        }
        let last = lines.len() - 1;
        let line =
            |(place, text): (usize, &String)| format!("250{}{text}", if place == last { ' ' } else { '-' });
        lines
            .iter()
            .enumerate()
            .map(line)
            .collect::<Vec<_>>()
            .join("\r\n")
    }

    async fn auth(&mut self, line: &str, place: &At) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let offered = |offer: &String| {
            offer
                .strip_prefix("AUTH ")
                .is_some_and(|names| names.split(' ').any(|name| name == mechanism))
        };
        if !self.shared.settings.offers.iter().any(offered) {
            self.say(place, "504 5.7.4 Unrecognized authentication type")
                .await?;
            return Ok(());
        }
        let credential = match (mechanism.as_str(), words.next()) {
            ("LOGIN", _) => {
                let Some(user) = self.ask(place, "334 VXNlcm5hbWU6").await? else {
                    return Ok(());
                };
                let Some(secret) = self.ask(&At::line(""), "334 UGFzc3dvcmQ6").await? else {
                    return Ok(());
                };
                Some((user, secret))
            }
            (_, Some(initial)) => parse(&mechanism, &decode(initial)),
            (_, None) => {
                let Some(answer) = self.ask(place, "334 ").await? else {
                    return Ok(());
                };
                parse(&mechanism, &answer)
            }
        };
        let Some((mailbox, secret)) = credential else {
            self.pipe.write(b"501 5.5.2 Cannot Decode response\r\n").await?;
            return Ok(());
        };
        match (self.shared.settings.authorize)(&mailbox, &secret) {
            Ok(account) => {
                let too_many = {
                    let mut kept = self.shared.kept();
                    let open = kept.open.entry(mailbox.clone()).or_default();
                    *open += 1;
                    self.shared.settings.connections.is_some_and(|most| *open > most)
                };
                self.who = Some(Who {
                    account,
                    mailbox,
                    mechanism,
                    too_many,
                });
                self.pipe.write(b"235 2.7.0 Authentication successful\r\n").await
            }
            Err(AuthRefusal { challenge, reply }) => {
                if let Some(challenge) = challenge {
                    let challenge = format!("334 {}\r\n", STANDARD.encode(challenge));
                    self.pipe.write(challenge.as_bytes()).await?;
                    self.command().await?;
                }
                self.pipe.write(format!("{reply}\r\n").as_bytes()).await
            }
        }
    }

    /// A challenge and its answer; `None` if a fault turned it into something else.
    async fn ask(&mut self, place: &At, challenge: &str) -> io::Result<Option<String>> {
        if !self.say(place, challenge).await?.starts_with("334") {
            return Ok(None);
        }
        Ok(Some(decode(&self.command().await?)))
    }

    async fn data(&mut self, place: &At, envelope: Envelope) -> io::Result<()> {
        let nobody = envelope.to.is_empty();
        let reply = if nobody {
            "554 5.5.1 no valid recipients"
        } else {
            "354 go on"
        };
        if !self.say(place, reply).await?.starts_with("354") {
            return Ok(());
        }
        let bytes = self.pipe.message().await?;
        let reply = match self.judge(&envelope, &bytes) {
            Ok(()) if nobody => "554 5.5.1 no valid recipients".to_owned(),
            Ok(()) => "250 2.0.0 accepted for delivery".to_owned(),
            Err(reply) => reply,
        };
        if let Some(act) = self.faults.find(&At::Dot).cloned() {
            match act {
                Act::Cut => return cut(),
                _ => {
                    let said = self.say(&At::Dot, &reply).await?;
                    if said.starts_with('2') && said == reply {
                        self.keep(envelope, bytes);
                    }
                    return Ok(());
                }
            }
        }
        if reply.starts_with('2') {
            self.keep(envelope, bytes);
        }
        self.say(&At::Stored, &reply).await?;
        Ok(())
    }

    /// What Exchange looks at when it has the whole message.
    fn judge(&self, envelope: &Envelope, bytes: &[u8]) -> Result<(), String> {
        let Some(who) = &self.who else { return Ok(()) };
        if who.too_many {
            let reply =
                "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending";
            return Err(reply.to_owned());
        }
        let may_send = &self.shared.settings.may_send;
        let envelope_from = envelope.from.clone().unwrap_or_default();
        let header_from = header_from(bytes).unwrap_or_else(|| envelope_from.clone());
        for from in [envelope_from, header_from] {
            may_send(&who.account, &who.mailbox, &from)?;
        }
        Ok(())
    }

    fn keep(&self, envelope: Envelope, bytes: Vec<u8>) {
        let who = self.who.as_ref();
        let received = Received {
            from: envelope.from.unwrap_or_default(),
            to: envelope.to,
            account: who.map(|who| who.account.clone()),
            mailbox: who.map(|who| who.mailbox.clone()),
            mechanism: who.map(|who| who.mechanism.clone()),
            encrypted: self.encrypted,
            bytes,
            at: Timestamp::now(),
        };
        let count = {
            let mut kept = self.shared.kept();
            kept.messages.push(received);
            kept.messages.len()
        };
        self.shared.count.send_replace(count);
    }
}

fn decode(text: &str) -> String {
    let bytes = STANDARD.decode(text.trim()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Mailbox and secret from a client's answer.
fn parse(mechanism: &str, answer: &str) -> Option<(String, String)> {
    let token = |answer: &str| {
        let bearer = answer
            .split('\x01')
            .find_map(|field| field.strip_prefix("auth=Bearer "))?;
        Some(bearer.to_owned())
    };
    match mechanism {
        "XOAUTH2" => {
            let user = answer.split('\x01').next()?.strip_prefix("user=")?;
            Some((user.to_owned(), token(answer)?))
        }
        "OAUTHBEARER" => {
            let user = answer.strip_prefix("n,a=")?.split(",\x01").next()?;
            Some((user.replace("=2C", ",").replace("=3D", "="), token(answer)?))
        }
        "PLAIN" => {
            let mut fields = answer.split('\0').skip(1);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        }
        _ => None,
    }
}

/// The address between the angle brackets of MAIL or RCPT.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(address, _)| address.to_owned())
}

/// The address in the From field, as far as a mail of ours is concerned.
fn header_from(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let headers = text
        .split("\r\n\r\n")
        .next()?
        .replace("\r\n ", " ")
        .replace("\r\n\t", " ");
    let field = headers.split("\r\n").find_map(|line| {
        line.get(..5)
            .filter(|name| name.eq_ignore_ascii_case("from:"))
            .map(|_| &line[5..])
    })?;
    let address = match field.rsplit_once('<') {
        Some((_, rest)) => rest.split('>').next()?,
        None => field,
    };
    Some(address.trim().to_owned())
}

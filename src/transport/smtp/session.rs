//! One connection: does what its [`Dialogue`] asks, within the time limits.

use super::super::dialogue::{Ask, Dialogue, Stuffer, Wait, Words};
use super::super::transcript::{Said, Transcript};
use super::super::{Content, Gate, Parcel, Report, tls};
use super::Shared;
use crate::advice::Local;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of a message handled at once.
pub(super) const PIECE: usize = 64 * 1024;
/// How long goodbyes may take, and how long we listen to a server that hung up on us.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long a server may take to show that a rested connection still lives.
const PROBE: Duration = Duration::from_secs(10);

/// The connection itself.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Broken in the middle of the handshake.
    Gone,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// Makes it TLS; the protocol's name.
    pub(super) async fn secure(
        &mut self,
        with: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> io::Result<&'static str> {
        let (Wire::Plain(tcp), Some((config, name))) = (std::mem::replace(self, Wire::Gone), with) else {
            return Err(io::Error::other("it is encrypted already, or never to be"));
        };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name.clone(), tcp)
            .await?;
        let version = stream.get_ref().1.protocol_version();
        *self = Wire::Tls(Box::new(stream));
        Ok(match version {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS 1.2",
        })
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(tcp) => tcp.read(buffer).await,
            Wire::Tls(tls) => tls.read(buffer).await,
            Wire::Gone => Ok(0),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Wire::Plain(tcp) => tcp.write_all(bytes).await,
            Wire::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
            Wire::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn end(&mut self) {
        let _ = match self {
            Wire::Plain(tcp) => tcp.shutdown().await,
            Wire::Tls(tls) => tls.shutdown().await,
            Wire::Gone => Ok(()),
        };
    }
}

/// A connection and what is said on it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) dialogue: Dialogue,
    pub(super) opened: Instant,
    pub(super) mails: u32,
    wire: Wire,
    number: u64,
    /// When the reply we wait for is late; unset when one has come or something was said.
    patience: Option<Instant>,
    buffer: Box<[u8]>,
}

impl Session {
    pub(super) fn new(wire: Wire, dialogue: Dialogue, number: u64) -> Session {
        Session {
            dialogue,
            opened: Instant::now(),
            mails: 0,
            wire,
            number,
            patience: None,
            buffer: vec![0; 4096].into_boxed_slice(),
        }
    }

    /// Runs until the dialogue is `Ready` (`None`) or has a report.
    pub(super) async fn run(
        &mut self,
        shared: &Shared,
        deadline: Instant,
        mail: Option<(&Parcel, &dyn Gate)>,
        transcript: Option<&Transcript>,
    ) -> Option<Report> {
        let mut run = Run {
            session: self,
            shared,
            deadline,
            transcript,
        };
        loop {
            match run.session.dialogue.ask() {
                Ask::Ready => return None,
                Ask::Done(report) => return Some(report),
                Ask::Write(words) => run.write(&words).await,
                Ask::Read(wait) => run.read(wait).await,
                Ask::Secure => run.secure().await,
                Ask::Body => match mail {
                    Some((parcel, _)) => run.body(&parcel.content).await,
                    None => return None,
                },
                Ask::Gate => match mail {
                    Some((_, gate)) => run.gate(gate).await,
                    None => return None,
                },
            }
        }
    }

    /// What the server showed of itself, in DER form, its own certificate first.
    pub(super) fn certificates(&self) -> Vec<Vec<u8>> {
        match &self.wire {
            Wire::Tls(tls) => {
                let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
                shown.iter().map(|certificate| certificate.to_vec()).collect()
            }
            Wire::Plain(_) | Wire::Gone => Vec::new(),
        }
    }

    /// Says QUIT if that makes sense, and closes. Waits a moment for the answer, so that the server
    /// counts one connection less before the next is made.
    pub(super) async fn farewell(&mut self, shared: &Shared, transcript: Option<&Transcript>) {
        let limit = LAST_WORDS.min(shared.limits.reply);
        let number = self.number;
        let goodbye = async {
            if let Some(words) = self.dialogue.farewell() {
                show(transcript, number, Said::Client, &words.shown);
                self.wire.write(&words.bytes).await?;
                self.wire.read(&mut self.buffer).await?;
            }
            self.wire.end().await;
            io::Result::Ok(())
        };
        let _ = timeout(limit, goodbye).await;
        self.wire = Wire::Gone;
    }
}

fn show(transcript: Option<&Transcript>, number: u64, said: Said, lines: &[String]) {
    if let Some(transcript) = transcript {
        lines.iter().for_each(|line| transcript.line(number, said, line));
    }
}

/// What one run needs at hand.
struct Run<'a> {
    session: &'a mut Session,
    shared: &'a Shared,
    deadline: Instant,
    transcript: Option<&'a Transcript>,
}

impl Run<'_> {
    fn server(&self) -> String {
        format!("{} port {}", self.shared.settings.host, self.shared.settings.port)
    }

    fn show(&self, said: Said, line: &str) {
        if let Some(transcript) = self.transcript {
            transcript.line(self.session.number, said, line);
        }
    }

    fn lost(&mut self, text: String, local: Local, transient: bool, hung_up: bool) {
        self.show(Said::Note, &text);
        self.session.dialogue.lost(text, local, transient, hung_up);
    }

    fn receive(&mut self, read: usize) {
        let Session { dialogue, buffer, .. } = &mut *self.session;
        dialogue.receive(&buffer[..read]);
        let heard = dialogue.heard();
        if !heard.is_empty() {
            self.session.patience = None;
            show(self.transcript, self.session.number, Said::Server, &heard);
        }
    }

    async fn write(&mut self, words: &Words) {
        show(self.transcript, self.session.number, Said::Client, &words.shown);
        self.session.patience = None;
        self.put(&words.bytes).await;
    }

    /// Writes; whether it worked. If not, the dialogue knows.
    async fn put(&mut self, bytes: &[u8]) -> bool {
        let until = self.deadline.min(Instant::now() + self.shared.limits.reply);
        match timeout_at(until, self.session.wire.write(bytes)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                // It may have said why before it left.
                let until = Instant::now() + LAST_WORDS;
                while !self.session.dialogue.is_over() {
                    let Session { wire, buffer, .. } = &mut *self.session;
                    match timeout_at(until, wire.read(buffer)).await {
                        Ok(Ok(read @ 1..)) => self.receive(read),
                        _ => break,
                    }
                }
                let text = format!("{} closed the connection while we wrote: {error}", self.server());
                self.lost(text, Local::NoAnswer, true, true);
                false
            }
            Err(_) => {
                let text = format!("{} took nothing from us for too long", self.server());
                self.lost(text, Local::NoAnswer, true, false);
                false
            }
        }
    }

    async fn read(&mut self, wait: Wait) {
        let limits = &self.shared.limits;
        let limit = match wait {
            Wait::Reply => limits.reply,
            Wait::Probe => limits.reply.min(PROBE),
            Wait::Final => limits.final_reply,
        };
        let mut until = *self
            .session
            .patience
            .get_or_insert_with(|| Instant::now() + limit);
        if wait != Wait::Final {
            until = until.min(self.deadline);
        }
        let Session { wire, buffer, .. } = &mut *self.session;
        match timeout_at(until, wire.read(buffer)).await {
            Ok(Ok(0)) => self.lost(
                format!("{} closed the connection", self.server()),
                Local::NoAnswer,
                true,
                true,
            ),
            Ok(Ok(read)) => self.receive(read),
            Ok(Err(error)) => {
                let text = format!("lost the connection to {}: {error}", self.server());
                self.lost(text, Local::NoAnswer, true, true);
            }
            Err(_) => {
                let text = match Instant::now() >= self.deadline && wait != Wait::Final {
                    true => format!("{} was not done within {:?}", self.server(), limits.total),
                    false => format!("{} did not answer within {limit:?}", self.server()),
                };
                self.lost(text, Local::NoAnswer, true, wait == Wait::Probe);
            }
        }
    }

    async fn secure(&mut self) {
        let until = self.deadline.min(Instant::now() + self.shared.limits.connect);
        let secured = timeout_at(until, self.session.wire.secure(self.shared.secure.as_ref())).await;
        match secured.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(version) => {
                self.show(Said::Note, &format!("encrypted with {version}"));
                self.session.dialogue.secured();
            }
            Err(error) => {
                let (text, local, transient) = tls::explain(&error, &self.shared.settings.host);
                self.lost(text, local, transient, false);
            }
        }
    }

    async fn body(&mut self, content: &Content) {
        let len = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { len, .. } => *len,
        };
        self.show(Said::Client, &format!("[{len} bytes]"));
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        let whole = match content {
            Content::Bytes(bytes) => {
                let mut whole = true;
                for piece in bytes.chunks(PIECE) {
                    if out.len() >= PIECE {
                        whole = self.put(&out).await;
                        out.clear();
                    }
                    if !whole {
                        break;
                    }
                    stuffer.push(piece, &mut out);
                }
                whole
            }
            Content::File { path, len } => match self.stream(path, *len, &mut stuffer, &mut out).await {
                Ok(whole) => whole,
                Err(error) => {
                    let text = format!("cannot read the stored message {}: {error}", path.display());
                    self.lost(text, Local::MessageUnreadable, false, false);
                    false
                }
            },
        };
        stuffer.finish(&mut out);
        if whole && self.put(&out).await {
            self.session.dialogue.streamed();
        }
    }

    /// Sends all of a file but the last piece, which stays in `out`. A file that is not as long as
    /// it was must not be sent: half a message would look whole.
    async fn stream(
        &mut self,
        path: &std::path::Path,
        len: u64,
        stuffer: &mut Stuffer,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let mut file = tokio::fs::File::open(path).await?;
        let mut piece = vec![0; PIECE];
        let mut total = 0;
        loop {
            let read = file.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            total += read as u64;
            if out.len() >= PIECE {
                if !self.put(out).await {
                    return Ok(false);
                }
                out.clear();
            }
            stuffer.push(&piece[..read], out);
        }
        if total != len {
            return Err(io::Error::other(format!("it has {total} bytes, not {len}")));
        }
        Ok(true)
    }

    /// Looks once whether the server has left or refused already, which spares a mail from becoming
    /// unknown; then asks.
    async fn gate(&mut self, gate: &dyn Gate) {
        let Session { wire, buffer, .. } = &mut *self.session;
        match at_once(wire.read(buffer)).await {
            Some(Ok(0)) => {
                self.lost(
                    format!("{} closed the connection", self.server()),
                    Local::NoAnswer,
                    true,
                    true,
                );
            }
            Some(Ok(read)) => self.receive(read),
            Some(Err(error)) => {
                let text = format!("lost the connection to {}: {error}", self.server());
                self.lost(text, Local::NoAnswer, true, true);
            }
            None => {}
        }
        if self.session.dialogue.is_over() {
            return;
        }
        match gate.pass().await {
            Ok(()) => self.session.dialogue.passed(),
            Err(closed) => {
                self.show(Said::Note, &closed.to_string());
                self.session.dialogue.shut(closed);
            }
        }
    }
}

/// What `future` has to say without waiting.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

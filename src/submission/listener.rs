//! Where mails are handed in over SMTP: sockets, TLS, passwords and limits around [`Session`].
//!
//! A [`Door`] is a place to listen, made whole before anything of it is used: at the start, and at a reload beside the
//! one that is open. Who is inside stays under the door he came in by.

use crate::clock::Clock;
use crate::config::handed::{Submission, is_here};
use crate::config::secret::{Secret, SecretSource};
use crate::config::settings::Settings;
use crate::store::Store;
use crate::submission::intake::{self, Handed, Way};
use crate::submission::policy::{Policy, Refusal, What};
use crate::submission::session::{Do, Mail, Session, Taken, Terms};
use crate::submission::wire::{Buffer, Ended, Message};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Longest session.
const SESSION: Duration = Duration::from_secs(3600);
/// What a message may hold without asking, bytes.
const SMALL: usize = 1_000_000;
/// Larger messages at once.
const LARGE: usize = 4;
/// How long a wrong password is thought about.
const WRONG: Duration = Duration::from_secs(1);
/// How long what is kept may take.
const KEEPING: Duration = Duration::from_secs(60);
/// Clients whose pace is remembered.
const CLIENTS: usize = 10_000;

/// Why nobody can listen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DoorError {
    /// The address cannot be had.
    #[error("submission: cannot listen on {address}: {why}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's words.
        why: String,
    },
    /// The certificate is of no use.
    #[error("submission: the certificate {cert} and its key {key} cannot be used: {why}")]
    Tls {
        /// The certificate.
        cert: String,
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// A place to listen, with everything that holds for who comes in.
#[derive(Debug)]
pub struct Door {
    house: Arc<House>,
    listeners: Vec<(SocketAddr, Arc<TcpListener>)>,
    connections: usize,
}

/// What holds for whoever hands in.
pub struct House {
    /// Accounts, senders, recipients.
    pub settings: Arc<Settings>,
    /// This machine's name.
    pub host: String,
    /// How mails come in.
    pub way: Way,
    tls: Option<TlsAcceptor>,
    users: BTreeMap<String, SecretSource>,
    timeout: Duration,
    take_once: Duration,
    per_minute: Option<u32>,
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House")
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

impl House {
    /// For one who speaks SMTP on stdin: no passwords, no hurry.
    pub fn at_home(settings: Arc<Settings>, host: String) -> House {
        House {
            settings,
            host,
            way: Way::Sendmail,
            tls: None,
            users: BTreeMap::new(),
            timeout: SESSION,
            take_once: Duration::ZERO,
            per_minute: None,
        }
    }
}

impl Door {
    /// A door that is shut: nobody listens.
    pub fn shut(settings: Arc<Settings>, host: String) -> Door {
        Door {
            house: Arc::new(House::at_home(settings, host)),
            listeners: Vec::new(),
            connections: 0,
        }
    }

    /// Listens as the settings say. What `before` listens on already is kept open.
    pub async fn open(settings: Arc<Settings>, host: String, before: &Door) -> Result<Door, DoorError> {
        let Some(wanted) = settings.submission.clone() else {
            return Ok(Door::shut(settings, host));
        };
        let Submission {
            listen,
            tls,
            users,
            per_minute,
            connections,
            timeout,
            take_once,
        } = wanted;
        let tls = match tls {
            None => None,
            Some((cert, key)) => Some(TlsAcceptor::from(certificate(&cert, &key)?)),
        };
        let mut listeners = Vec::new();
        for address in listen {
            let open = before.listeners.iter().find(|(open, _)| *open == address);
            let listener = match open {
                Some((_, listener)) => Arc::clone(listener),
                None => Arc::new(
                    TcpListener::bind(address)
                        .await
                        .map_err(|error| DoorError::Listen {
                            address,
                            why: error.to_string(),
                        })?,
                ),
            };
            listeners.push((address, listener));
        }
        Ok(Door {
            house: Arc::new(House {
                settings,
                host,
                way: Way::Submission,
                tls,
                users,
                timeout,
                take_once,
                per_minute: Some(per_minute),
            }),
            listeners,
            connections,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(address, _)| *address).collect()
    }

    /// The next one who comes, through any of its addresses.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| {
            for (_, listener) in &self.listeners {
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The certificate with its chain, and the key that belongs to it.
fn certificate(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, DoorError> {
    let failed = |why: String| DoorError::Tls {
        cert: cert.display().to_string(),
        key: key.display().to_string(),
        why,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    if chain.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map(Arc::new)
        .map_err(|error| failed(error.to_string()))
}

/// What all who hand in share.
pub struct Shared {
    store: Store,
    clock: Clock,
    pace: Mutex<HashMap<String, VecDeque<Instant>>>,
    large: Arc<Semaphore>,
}

impl Shared {
    /// Nobody came so far.
    pub fn new(store: Store, clock: Clock) -> Shared {
        Shared {
            store,
            clock,
            pace: Mutex::default(),
            large: Arc::new(Semaphore::new(LARGE)),
        }
    }

    /// Whether a client may hand in one more within a minute; then it is counted.
    fn pass(&self, client: &str, most: u32, now: Instant) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |time: &Instant| now.duration_since(*time) < Duration::from_secs(60);
        if pace.len() > CLIENTS {
            pace.retain(|_, times| times.back().is_some_and(recent));
        }
        let times = pace.entry(client.to_owned()).or_default();
        while times.front().is_some_and(|time| !recent(time)) {
            times.pop_front();
        }
        let fine = times.len() < most as usize;
        if fine {
            times.push_back(now);
        }
        fine
    }
}

/// Lets people in until stopped. Nobody is told yes before his mail is on disk, so who is inside then may be cut off:
/// only a mail that is being kept is waited for.
pub async fn run(store: Store, clock: Clock, mut doors: watch::Receiver<Arc<Door>>, stop: CancellationToken) {
    let shared = Arc::new(Shared::new(store, clock));
    let mut guests = JoinSet::new();
    loop {
        let door = Arc::clone(&doors.borrow_and_update());
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = doors.changed() => {}
            Some(_) = guests.join_next(), if !guests.is_empty() => {}
            accepted = door.accept() => match accepted {
                Ok((stream, peer)) if guests.len() < door.connections => {
                    let _ = stream.set_nodelay(true);
                    let (house, shared, stop) = (Arc::clone(&door.house), Arc::clone(&shared), stop.clone());
                    guests.spawn(async move { serve(Box::new(stream), Client::At(peer), &house, &shared, &stop).await });
                }
                Ok((mut stream, peer)) => {
                    tracing::warn!(client = %peer.ip(), "too many connections at once");
                    let words = Session::farewell(&door.house.host, "too many connections; try again later");
                    // Whoever does not read it is not waited for.
                    let _ = tokio::time::timeout(Duration::from_millis(100), stream.write_all(words.as_bytes())).await;
                }
                Err(error) => {
                    // Out of descriptors, or the client went away before we looked.
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    while guests.join_next().await.is_some() {}
}

/// Who hands in.
#[derive(Clone, Debug)]
pub enum Client {
    /// Over the network.
    At(SocketAddr),
    /// A user of this machine, on stdin.
    User(String),
}

/// Both ways at once.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One session, to its end.
pub async fn serve(
    stream: Box<dyn Stream>,
    client: Client,
    house: &House,
    shared: &Shared,
    stop: &CancellationToken,
) {
    let here = match &client {
        Client::At(peer) => is_here(peer.ip()),
        Client::User(_) => true,
    };
    let (session, greeting) = Session::new(Terms {
        host: house.host.clone(),
        tls: house.tls.is_some(),
        sign_in: !house.users.is_empty(),
        here,
        max_size: house.settings.handed_in.max_size,
    });
    let mut guest = Guest {
        stream: Some(stream),
        buffer: Buffer::default(),
        session,
        client,
        house,
        shared,
        stop,
        permit: None,
    };
    match tokio::time::timeout(SESSION, guest.run(greeting)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(client = ?guest.client, %error, "a session was cut off"),
        Err(_) => tracing::warn!(client = ?guest.client, "a session took too long"),
    }
}

struct Guest<'a> {
    stream: Option<Box<dyn Stream>>,
    buffer: Buffer,
    session: Session,
    client: Client,
    house: &'a House,
    shared: &'a Shared,
    stop: &'a CancellationToken,
    /// The right to hold a large message.
    permit: Option<OwnedSemaphorePermit>,
}

impl Guest<'_> {
    async fn run(&mut self, greeting: Do) -> io::Result<()> {
        let mut todo = VecDeque::from([greeting]);
        loop {
            while let Some(step) = todo.pop_front() {
                let more = match step {
                    Do::Say(text) => {
                        self.write(&text).await?;
                        Vec::new()
                    }
                    Do::HangUp => return self.stream()?.shutdown().await,
                    // What was read already was said before we answered: by somebody else, perhaps.
                    Do::Secure | Do::Read if !self.buffer.is_empty() => self.session.too_early(),
                    Do::Secure => {
                        self.secure().await?;
                        self.session.secured()
                    }
                    Do::Read => {
                        let ended = self.message().await?;
                        self.session.message(ended)
                    }
                    Do::SignIn { user, password } => {
                        let right = self.is_right(&user, &password).await;
                        self.session.signed_in(user, right)
                    }
                    Do::Recipient(text) => {
                        let verdict = self.policy().recipient(&text).map(drop);
                        if let Err(refusal) = &verdict {
                            tracing::warn!(client = ?self.client, %refusal, "a recipient was refused");
                        }
                        self.session.recipient(text, verdict)
                    }
                    Do::Take(mail) => {
                        let taken = self.take(mail).await;
                        self.permit = None;
                        self.session.taken(taken)
                    }
                };
                todo.extend(more);
            }
            match self.buffer.line() {
                Ok(Some(line)) => todo.extend(self.session.line(&line)),
                Ok(None) => self.fill().await?,
                Err(why) => todo.extend(self.session.crooked(why)),
            }
        }
    }

    fn policy(&self) -> Policy<'_> {
        Policy {
            settings: &self.house.settings,
            host: &self.house.host,
        }
    }

    fn stream(&mut self) -> io::Result<&mut Box<dyn Stream>> {
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn write(&mut self, text: &str) -> io::Result<()> {
        let timeout = self.house.timeout;
        let stream = self.stream()?;
        let writing = async {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await
        };
        tokio::time::timeout(timeout, writing).await?
    }

    /// Reads something, or says why we go.
    async fn fill(&mut self) -> io::Result<()> {
        let (timeout, stop) = (self.house.timeout, self.stop);
        let mut piece = [0; 16 * 1024];
        let stream = self.stream()?;
        let why = tokio::select! {
            read = stream.read(&mut piece) => match read? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => {
                    self.buffer.push(&piece[..count]);
                    return Ok(());
                }
            },
            () = tokio::time::sleep(timeout) => "you said nothing for too long",
            () = stop.cancelled() => "stops now; try again later",
        };
        let words = Session::farewell(&self.house.host, why);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.write(&words)).await;
        Err(io::Error::other(why))
    }

    async fn secure(&mut self) -> io::Result<()> {
        let (Some(acceptor), Some(stream)) = (&self.house.tls, self.stream.take()) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let secured = tokio::time::timeout(Duration::from_secs(30), acceptor.accept(stream)).await??;
        self.stream = Some(Box::new(secured));
        Ok(())
    }

    /// The message behind DATA. Few large ones are held at a time; the others wait, and so do their clients.
    async fn message(&mut self) -> io::Result<Ended> {
        let mut message = Message::new(self.house.settings.handed_in.max_size);
        loop {
            if self.buffer.is_empty() {
                if message.len() > SMALL && self.permit.is_none() {
                    let large = Arc::clone(&self.shared.large).acquire_owned();
                    let permit = tokio::time::timeout(self.house.timeout, large).await?;
                    self.permit = Some(permit.map_err(io::Error::other)?);
                }
                self.fill().await?;
            }
            let (used, ended) = message.push(self.buffer.rest());
            self.buffer.use_up(used);
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// Whether it is that user's password; no time tells how much of it is right.
    async fn is_right(&mut self, user: &str, given: &Secret) -> Option<bool> {
        let right = match self.house.users.get(user) {
            None => false,
            Some(source) => match source.read().await {
                Ok(secret) => {
                    blake3::hash(secret.expose().as_bytes()) == blake3::hash(given.expose().as_bytes())
                }
                Err(error) => {
                    tracing::error!(user, %error, "a password for the submission listener cannot be had");
                    return None;
                }
            },
        };
        if !right {
            tracing::warn!(client = ?self.client, user = ?user, "a wrong user or password");
            tokio::time::sleep(WRONG).await;
        }
        Some(right)
    }

    async fn take(&mut self, mail: Mail) -> Taken {
        let at = match &self.client {
            Client::At(peer) => peer.ip().to_canonical().to_string(),
            Client::User(user) => user.clone(),
        };
        let (by, client) = match &mail.user {
            Some(user) => (format!("{user} at {at}"), format!("user {user}")),
            None => (at.clone(), at),
        };
        if let Some(most) = self.house.per_minute
            && !self.shared.pass(&client, most, Instant::now())
        {
            tracing::warn!(client, "too many messages in a minute");
            return Taken::Later(format!("more than {most} messages in a minute; try again later"));
        }
        let (settings, host) = (Arc::clone(&self.house.settings), self.house.host.clone());
        let (now, way, within) = (self.shared.clock.now(), self.house.way, self.house.take_once);
        let preparing = tokio::task::spawn_blocking(move || {
            let handed = Handed {
                way,
                by,
                client,
                other: mail.from,
                full_name: None,
                given: mail.to,
                by_header: false,
                raw: &mail.bytes,
                nonce: intake::nonce(),
                once: !within.is_zero(),
            };
            intake::prepare(&handed, &settings, &host, now)
        });
        let prepared = match preparing.await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(refusal)) => {
                tracing::warn!(client = ?self.client, %refusal, "a mail was refused");
                return Taken::Refused(refusal);
            }
            Err(error) => {
                tracing::error!(%error, "a message could not be read; this is a fault of ours");
                return Taken::Refused(Refusal::new(What::Message, "it could not be read", ""));
            }
        };
        let keeping = intake::take(&self.shared.store, prepared, within);
        match tokio::time::timeout(KEEPING, keeping).await {
            Ok(Ok(admitted)) => {
                tracing::info!(entry = %admitted.id, fresh = admitted.fresh, client = ?self.client, "a mail was handed in");
                Taken::Kept(admitted.id.0)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a mail that was handed in cannot be kept");
                Taken::Later("it cannot be kept now".to_owned())
            }
            Err(_) => Taken::Later("it could not be kept in time".to_owned()),
        }
    }
}

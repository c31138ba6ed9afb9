//! Submission over SMTP: sockets, time limits and the pool of connections around [`dialogue`].
//!
//! # Theory of operation
//!
//! [`Smtp`] belongs to one account's server. Each [`Smtp::submit`] takes a permit (as many as the
//! account may have connections), then an idle connection that was signed in for the same user, or
//! opens one, and lets the [`Dialogue`] say what to do until it has a [`Report`]. A connection that
//! is still in step goes back to the idle ones, for at most [`IDLE`], [`AGE`] and [`MAILS`]; a small
//! task says QUIT to those that lie too long, and ends when none is left.
//!
//! A connection that lay idle may have died unnoticed. If the server turns out to have left before
//! this mail was past its gate, one new connection is made at once, and that counts as no attempt.
//!
//! Dropping a `submit` that runs closes its connection. Before the gate that means: nothing sent.
//!
//! [`dialogue`]: super::dialogue

mod connect;
pub mod look;
mod session;

use super::dialogue::{Dialogue, Opening, Survey};
use super::transcript::{Said, Transcript};
use super::{Content, Gate, Limits, Login, Parcel, Report, Verdict, tls};
use crate::advice::Local;
use crate::config::settings::{SmtpSettings, Tls};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use session::{Session, Wire};
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tls::TlsError;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// How long a connection may lie idle; servers close theirs after one to five minutes.
pub const IDLE: Duration = Duration::from_secs(60);
/// How long a connection may live.
pub const AGE: Duration = Duration::from_secs(300);
/// How many messages a connection may carry.
pub const MAILS: u32 = 100;
/// Past this rest a connection is probed before it is trusted with a mail.
const REST: Duration = Duration::from_secs(5);

/// A submission server, and our connections to it.
#[derive(Debug)]
pub struct Smtp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: SmtpSettings,
    limits: Limits,
    /// Absent if nothing is encrypted.
    secure: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connections: usize,
    permits: Semaphore,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Oldest rest first.
    sessions: Vec<Resting>,
    /// The task that closes them runs.
    reaping: bool,
}

#[derive(Debug)]
struct Resting {
    session: Session,
    user: Option<String>,
    since: Instant,
}

impl Resting {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.since + IDLE && now < self.session.opened + AGE && self.session.mails < MAILS
    }
}

impl Smtp {
    /// Reads the roots to trust; opens nothing yet. `connections`: at most so many at once, at
    /// least one.
    pub fn new(settings: &SmtpSettings, limits: Limits, connections: usize) -> Result<Smtp, TlsError> {
        let secure = match settings.tls {
            Tls::None => None,
            Tls::Starttls | Tls::Implicit => Some((
                tls::client(settings.ca_file.as_deref())?,
                tls::name(&settings.host)?,
            )),
        };
        let connections = connections.max(1);
        let shared = Shared {
            settings: settings.clone(),
            limits,
            secure,
            connections,
            permits: Semaphore::new(connections),
            idle: Mutex::default(),
        };
        Ok(Smtp {
            shared: Arc::new(shared),
        })
    }

    /// Submits one message. Waits for a free connection first, without a limit; from then on
    /// [`Limits`] hold. The gate is asked once, when all but the final dot was sent.
    pub async fn submit(
        &self,
        login: &Login,
        parcel: &Parcel,
        gate: &dyn Gate,
        transcript: Option<&Transcript>,
    ) -> Report {
        let shared = &self.shared;
        let Ok(_permit) = shared.permits.acquire().await else {
            return unreached("we are stopping".to_owned(), true, Local::NoAnswer);
        };
        let deadline = Instant::now() + shared.limits.total;
        let survey = match survey(&parcel.content).await {
            Ok(survey) => survey,
            Err(error) => {
                let text = format!("cannot read the stored message {}: {error}", parcel.message_id);
                return unreached(text, false, Local::MessageUnreadable);
            }
        };
        let user = match login {
            Login::Anonymous => None,
            Login::Password { user, .. } | Login::Bearer { user, .. } => Some(user.clone()),
        };
        if let Some(Resting {
            mut session, since, ..
        }) = shared.take(user.as_deref())
        {
            let rested = since.elapsed() >= REST;
            session.dialogue.begin(&parcel.envelope, &survey, rested);
            let report = session
                .run(shared, deadline, Some((parcel, gate)), transcript)
                .await;
            if !session.dialogue.hung_up() {
                shared.rest(session, user, report.is_some(), transcript).await;
                return report.unwrap_or_else(ended_early);
            }
        }
        let mut session = match shared.open(login, deadline, transcript).await {
            Ok(session) => session,
            Err(report) => return report,
        };
        session.dialogue.begin(&parcel.envelope, &survey, false);
        let report = session
            .run(shared, deadline, Some((parcel, gate)), transcript)
            .await;
        shared.rest(session, user, report.is_some(), transcript).await;
        report.unwrap_or_else(ended_early)
    }

    /// Says goodbye on all idle connections. Later submissions are refused; running ones end by
    /// themselves.
    pub async fn close(&self) {
        self.shared.permits.close();
        let resting = std::mem::take(&mut self.shared.idle().sessions);
        for mut resting in resting {
            resting.session.farewell(&self.shared, None).await;
        }
    }
}

/// A session says `Ready` only when there is nothing to do, which a mail never is.
fn ended_early() -> Report {
    unreached(
        "the session ended without a word about the mail".to_owned(),
        true,
        Local::Protocol,
    )
}

fn unreached(text: String, transient: bool, local: Local) -> Report {
    Report::of(Verdict::Unreached {
        text,
        transient,
        local,
    })
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The idle connection of `user` that was used last; the others may grow old.
    fn take(&self, user: Option<&str>) -> Option<Resting> {
        let now = Instant::now();
        let mut idle = self.idle();
        let fits = |resting: &Resting| resting.user.as_deref() == user && resting.is_fresh(now);
        let place = idle.sessions.iter().rposition(fits)?;
        Some(idle.sessions.remove(place))
    }

    /// Keeps a session for the next mail, or ends it.
    async fn rest(
        self: &Arc<Shared>,
        mut session: Session,
        user: Option<String>,
        usable: bool,
        transcript: Option<&Transcript>,
    ) {
        session.mails += 1;
        let resting = Resting {
            session,
            user,
            since: Instant::now(),
        };
        let usable = usable && !resting.session.dialogue.is_over() && !self.permits.is_closed();
        if !(usable && resting.is_fresh(resting.since)) {
            let mut session = resting.session;
            return session.farewell(self, transcript).await;
        }
        let mut idle = self.idle();
        idle.sessions.push(resting);
        if !std::mem::replace(&mut idle.reaping, true) {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    /// Opens a connection and signs in.
    async fn open(
        &self,
        login: &Login,
        deadline: Instant,
        transcript: Option<&Transcript>,
    ) -> Result<Session, Report> {
        self.make_room().await;
        let SmtpSettings { host, port, tls, .. } = &self.settings;
        let number = Transcript::session();
        let note = |text: &str| {
            if let Some(transcript) = transcript {
                transcript.line(number, Said::Note, text);
            }
        };
        let until = deadline.min(Instant::now() + self.limits.connect);
        let failed = |(text, local): (String, Local)| {
            note(&text);
            unreached(text, true, local)
        };
        let tcp = connect::connect(host, *port, until).await.map_err(failed)?;
        let lost = |error: io::Error| {
            failed((
                format!("lost the connection to {host}:{port}: {error}"),
                Local::ConnectFailed,
            ))
        };
        let (peer, own) = (tcp.peer_addr().map_err(lost)?, tcp.local_addr().map_err(lost)?);
        note(&format!("connected to {host} at {peer}"));
        let mut wire = Wire::Plain(tcp);
        if *tls == Tls::Implicit {
            let secured = timeout_at(until, wire.secure(self.secure.as_ref())).await;
            let secured = secured.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match secured {
                Ok(version) => note(&format!("encrypted with {version}")),
                Err(error) => {
                    let (text, local, transient) = tls::explain(&error, host);
                    note(&text);
                    return Err(unreached(text, transient, local));
                }
            }
        }
        let dialogue = Dialogue::new(Opening {
            helo: connect::literal(own.ip()),
            host: host.clone(),
            port: *port,
            tls: *tls,
            loopback: peer.ip().to_canonical().is_loopback(),
            login: login.clone(),
        });
        let mut session = Session::new(wire, dialogue, number);
        match session.run(self, deadline, None, transcript).await {
            None => Ok(session),
            Some(report) => {
                session.farewell(self, transcript).await;
                Err(report)
            }
        }
    }

    /// Closes idle connections of other users when a new one would be too many at once.
    async fn make_room(&self) {
        loop {
            let busy = self.connections.saturating_sub(self.permits.available_permits());
            let mut resting = {
                let mut idle = self.idle();
                if idle.sessions.is_empty() || idle.sessions.len() + busy <= self.connections {
                    return;
                }
                idle.sessions.remove(0)
            };
            resting.session.farewell(self, None).await;
        }
    }
}

/// Ends connections that have been idle for too long, until none is left.
async fn reap(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(shared) = shared.upgrade() else { return };
        let now = Instant::now();
        let stale = {
            let mut idle = shared.idle();
            let (fresh, stale) = std::mem::take(&mut idle.sessions)
                .into_iter()
                .partition(|r| r.is_fresh(now));
            idle.sessions = fresh;
            idle.reaping = !idle.sessions.is_empty();
            let stale: Vec<Resting> = stale;
            (stale, idle.reaping)
        };
        let (stale, more) = stale;
        for mut resting in stale {
            resting.session.farewell(&shared, None).await;
        }
        if !more {
            return;
        }
    }
}

/// Looks the whole message through, off the runtime's threads if it lies in a file.
async fn survey(content: &Content) -> io::Result<Survey> {
    let mut survey = Survey::default();
    match content {
        Content::Bytes(bytes) => {
            survey.push(bytes);
            Ok(survey)
        }
        Content::File { path, len } => {
            let (path, len) = (path.clone(), *len);
            let look = move || {
                let mut file = std::fs::File::open(path)?;
                let mut piece = vec![0; session::PIECE];
                loop {
                    match file.read(&mut piece)? {
                        0 => break,
                        read => survey.push(&piece[..read]),
                    }
                }
                match survey.len == len {
                    true => Ok(survey),
                    false => Err(io::Error::other(format!(
                        "it has {} bytes, not {len}",
                        survey.len
                    ))),
                }
            };
            tokio::task::spawn_blocking(look)
                .await
                .map_err(io::Error::other)?
        }
    }
}

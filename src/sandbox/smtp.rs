//! A submission server on 127.0.0.1 that keeps what it accepts.
//!
//! As Exchange does, it lets a token in for the mailbox named in `user=` if [`Settings::authorize`]
//! says so, looks at the sender only at the end of DATA ([`Settings::may_send`]), and refuses too
//! many connections of one mailbox with 432 there.
//!
//! [`Settings::faults`] make it misbehave, connection by connection: the first one's faults, the
//! second one's, and so on; the last of them hold for all later ones.

mod faults;
mod session;

pub use faults::{Act, At, Faults};

use super::SandboxError;
use crate::config::settings::Tls;
use jiff::Timestamp;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Says who signs in with this login name and this token or password: the account, or why not.
pub type Authorize = Arc<dyn Fn(&str, &str) -> Result<String, AuthRefusal> + Send + Sync>;
/// Says whether `account`, signed in to `mailbox`, may send as `from`; else the reply.
pub type MaySend = Arc<dyn Fn(&str, &str, &str) -> Result<(), String> + Send + Sync>;

/// Why a sign-in is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRefusal {
    /// A JSON text that is sent first, in a 334, as Google does. Exchange sends none.
    pub challenge: Option<String>,
    /// The reply.
    pub reply: String,
}

impl AuthRefusal {
    /// As Exchange refuses a token that is bad, has run out, or lacks a right.
    pub fn exchange() -> AuthRefusal {
        AuthRefusal {
            challenge: None,
            reply: "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]"
                .into(),
        }
    }

    /// As Google refuses a token.
    pub fn google() -> AuthRefusal {
        AuthRefusal {
            challenge: Some(
                r#"{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}"#.into(),
            ),
            reply: "535-5.7.8 Username and Password not accepted. For more information, go to\r\n\
                    535 5.7.8  https://support.google.com/mail/?p=BadCredentials a640c23a62f3a"
                .into(),
        }
    }
}

/// How a server behaves.
#[derive(Clone)]
pub struct Settings {
    /// How it expects to be spoken to.
    pub tls: Tls,
    /// Its certificate, from [`super::Authority::server`]; needed unless `tls` is none.
    pub certificate: Option<Arc<ServerConfig>>,
    /// What it offers: `PIPELINING`, `SIZE 1000`, `AUTH XOAUTH2`. AUTH is offered only once TLS is
    /// up (or if `tls` is none), STARTTLS by itself.
    pub offers: Vec<String>,
    /// Whether mail is taken without a sign-in.
    pub anonymous: bool,
    /// Connections one mailbox may have at once.
    pub connections: Option<usize>,
    /// Who may sign in.
    pub authorize: Authorize,
    /// Who may send as whom.
    pub may_send: MaySend,
    /// How it misbehaves.
    pub faults: Vec<Faults>,
    /// Keep each command line, for [`Server::heard`].
    pub record: bool,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("tls", &self.tls)
            .field("offers", &self.offers)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// A relay without encryption and sign-in that offers what common servers do.
    pub fn open() -> Settings {
        let offers = [
            "PIPELINING",
            "SIZE 36700160",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
        ];
        Settings {
            tls: Tls::None,
            certificate: None,
            offers: offers.map(str::to_owned).to_vec(),
            anonymous: true,
            connections: None,
            authorize: Arc::new(|_, _| Err(AuthRefusal::exchange())),
            may_send: Arc::new(|_, _, _| Ok(())),
            faults: Vec::new(),
            record: false,
        }
    }

    /// STARTTLS and sign-in with XOAUTH2, as Exchange has it.
    pub fn exchange(certificate: Arc<ServerConfig>, authorize: Authorize, may_send: MaySend) -> Settings {
        let mut settings = Settings::open();
        settings.offers.push("AUTH LOGIN XOAUTH2".to_owned());
        Settings {
            tls: Tls::Starttls,
            certificate: Some(certificate),
            anonymous: false,
            connections: Some(3),
            authorize,
            may_send,
            ..settings
        }
    }
}

/// The reply of Exchange to somebody who may not send as another.
pub fn send_as_denied(login: &str, from: &str) -> String {
    format!(
        "554 5.2.252 SendAsDenied; {login} not allowed to send as {from}; \
         STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied"
    )
}

/// A message the server took responsibility for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// MAIL FROM.
    pub from: String,
    /// RCPT TO, the accepted ones.
    pub to: Vec<String>,
    /// Who signed in, as [`Settings::authorize`] says.
    pub account: Option<String>,
    /// The mailbox that was opened: `user=`.
    pub mailbox: Option<String>,
    /// The mechanism used.
    pub mechanism: Option<String>,
    /// Over TLS.
    pub encrypted: bool,
    /// As sent, dots unstuffed.
    pub bytes: Vec<u8>,
    /// When it was accepted.
    pub at: Timestamp,
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    kept: Mutex<Kept>,
    count: watch::Sender<usize>,
    /// Changes when all connections shall end.
    cuts: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Received>,
    heard: Vec<Vec<String>>,
    /// Connections signed in, by mailbox.
    open: HashMap<String, usize>,
    /// Connections now.
    now: usize,
    /// The most there were at once.
    most: usize,
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(settings: Settings) -> Result<Server, SandboxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            settings,
            kept: Mutex::default(),
            count: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Server {
            address,
            shared,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has taken `count` messages in all.
    pub async fn received(&self, count: usize) -> Vec<Received> {
        // The sender lives as long as we do, so this ends only with the number.
        let _ = self
            .shared
            .count
            .subscribe()
            .wait_for(|taken| *taken >= count)
            .await;
        self.messages()
    }

    /// What it has taken so far.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.kept().messages.clone()
    }

    /// The command lines of each connection so far, if it records them.
    pub fn heard(&self) -> Vec<Vec<String>> {
        self.shared.kept().heard.clone()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.kept().heard.len()
    }

    /// The most connections there were at once.
    pub fn most_connections(&self) -> usize {
        self.shared.kept().most
    }

    /// Cuts every connection there is now, as a server does that restarts.
    pub fn disconnect(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Closes everything.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let number = {
                    let mut kept = shared.kept();
                    kept.heard.push(Vec::new());
                    kept.now += 1;
                    kept.most = kept.most.max(kept.now);
                    kept.heard.len() - 1
                };
                connections.spawn(session::serve(stream, Arc::clone(&shared), number));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

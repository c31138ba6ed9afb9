//! A small authorization server on loopback, plain http: authorize page, codes for devices, token
//! endpoint with PKCE and rotation, grants without a person, a machine's identity, revocation,
//! discovery. For the demo and for tests; it trusts whoever clicks.
//!
//! Its tokens can be asked about ([`Handle::check`]), which is how the sandbox's mail server knows
//! them. Tokens live by the clock it is given; faults are played in the order they were asked for.

mod answers;
mod memory;
mod others;
mod pages;

pub use memory::{Account, Counters, Fault, Rotation, Settings, User, Voucher};

use answers::{authorize, discover, revoke, token};
use axum::Router;
use axum::routing::{get, post};
use memory::Shared;
use ring::rand::SystemRandom;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

/// A running server; it ends when the last handle is dropped.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("url", &self.shared.url)
            .finish_non_exhaustive()
    }
}

/// The server.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts one on a free port.
    pub async fn start(settings: Settings) -> std::io::Result<Handle> {
        Server::start_on(settings, 0).await
    }

    /// Starts one on that port.
    pub async fn start_on(settings: Settings, port: u16) -> std::io::Result<Handle> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let url = Url::parse(&format!("http://{}/", socket.local_addr()?)).map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            settings,
            url,
            random: SystemRandom::new(),
            memory: Mutex::default(),
        });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discover))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/device", post(others::device))
            .route("/activate", get(others::activate))
            .route("/metadata/identity/oauth2/token", get(others::machine))
            .layer(axum::middleware::map_response_with_state(
                shared.clone(),
                answers::dated,
            ))
            .with_state(shared.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serving = axum::serve(socket, app);
            tokio::select! {
                _ = serving => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Handle {
            shared,
            _stop: Arc::new(stop.drop_guard()),
        })
    }
}

impl Handle {
    /// Where it is, and its issuer: `http://127.0.0.1:PORT/`.
    pub fn url(&self) -> &Url {
        &self.shared.url
    }

    /// The address of one of its pages: `authorize`, `token`, `revoke`.
    pub fn endpoint(&self, name: &str) -> Url {
        let mut url = self.shared.url.clone();
        url.set_path(name);
        url
    }

    /// Who may sign in.
    pub fn users(&self) -> &[User] {
        &self.shared.settings.users
    }

    /// Whom an access token speaks for; nobody when it is unknown, ended or revoked.
    pub fn check(&self, token: &str) -> Option<Account> {
        let memory = self.shared.memory();
        let (family, until) = memory.access.get(token)?;
        let family = memory.families.get(*family).filter(|family| family.alive)?;
        (self.shared.now() < *until).then(|| Account {
            user: family.user.clone(),
            scopes: family.scopes.clone(),
        })
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.shared.memory().counters
    }

    /// The next request to the token endpoint that no fault is waiting for yet meets this one.
    pub fn fault(&self, fault: Fault) {
        self.shared.memory().faults.push_back(fault);
    }

    /// Every `n`th request to the token endpoint meets this fault; 0 for none.
    pub fn fault_every(&self, n: u64, fault: Fault) {
        self.shared.memory().every = (n > 0).then_some((n, fault));
    }

    /// From now on access tokens live that long.
    pub fn set_life(&self, life: Duration) {
        self.shared.memory().life = Some(life);
    }

    /// Ends all access tokens at once; refresh tokens stay good.
    pub fn end_access_tokens(&self) {
        self.shared.memory().access.clear();
    }

    /// Ends all grants, as an administrator would.
    pub fn end_grants(&self) {
        for family in &mut self.shared.memory().families {
            family.alive = false;
        }
    }

    /// Every secret it gave out that is still remembered, for a scan of what should not hold any.
    pub fn secrets(&self) -> Vec<String> {
        let memory = self.shared.memory();
        let (access, refresh, codes) = (memory.access.keys(), memory.refresh.keys(), memory.codes.keys());
        access.chain(refresh).chain(codes).cloned().collect()
    }
}

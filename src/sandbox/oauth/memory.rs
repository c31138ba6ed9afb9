//! How the authorization server shall behave, and what it remembers.

use crate::clock::Clock;
use crate::config::secret::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use url::Url;

/// How a server shall behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// By which its tokens live.
    pub clock: Clock,
    /// The one client it knows.
    pub client_id: String,
    /// That client's secret; without one, and without what follows, it is a public client.
    pub client_secret: Option<Secret>,
    /// That client's certificate, as PEM, in place of a secret.
    pub certificate: Option<String>,
    /// Signatures of the newer kind (PS256) are taken.
    pub pss: bool,
    /// A token of somebody else's that proves who the client is.
    pub assertion: Option<Secret>,
    /// What the client may do without a person: its name, and the mailboxes it may open. Nothing, if
    /// there is none.
    pub application: Option<User>,
    /// Keys that vouch for mailboxes: issuer, certificate as PEM, and which mailboxes.
    pub vouchers: Vec<Voucher>,
    /// How often a device may ask.
    pub interval: Duration,
    /// Its answers bear the time of its clock, and not this machine's.
    pub tells_time: bool,
    /// Who may sign in.
    pub users: Vec<User>,
    /// Sign in as that one without a page.
    pub approve: Option<String>,
    /// How long an access token lives.
    pub life: Duration,
    /// What becomes of a refresh token that was used.
    pub rotation: Rotation,
}

impl Settings {
    /// A public client `tidings`, alice who is a member of the shared mailbox
    /// `invoices@sandbox.example`, tokens of an hour, strict rotation, and a page to click on.
    pub fn new(clock: Clock) -> Settings {
        Settings {
            clock,
            client_id: "tidings".to_owned(),
            client_secret: None,
            certificate: None,
            pss: true,
            assertion: None,
            application: None,
            vouchers: Vec::new(),
            interval: Duration::from_secs(1),
            tells_time: false,
            users: vec![User {
                address: "alice@sandbox.example".to_owned(),
                shared: vec!["invoices@sandbox.example".to_owned()],
            }],
            approve: None,
            life: Duration::from_secs(3600),
            rotation: Rotation::Strict,
        }
    }
}

/// A key that vouches for mailboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// Who signs.
    pub issuer: String,
    /// Its certificate, as PEM.
    pub certificate: String,
    /// The mailboxes it may speak for.
    pub mailboxes: Vec<String>,
}

/// Somebody who may sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Own mailbox and sign-in name.
    pub address: String,
    /// Shared mailboxes it is a member of.
    pub shared: Vec<String>,
}

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It stays, no new one comes (Google).
    Keep,
    /// A new one comes and the old one stays good (Microsoft).
    Lenient,
    /// A new one comes; a second use of the old one ends the whole family (RFC 9700 4.14).
    Strict,
    /// As `Strict`, but within that time a second use is taken for a repetition.
    Grace(Duration),
}

/// What the token endpoint does instead of its duty, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// That status, with Retry-After in seconds if given, and a JSON error.
    Status(u16, Option<u32>),
    /// 502 with a proxy's HTML page.
    Page,
    /// 200 with a captive portal's HTML page.
    Portal,
    /// `invalid_grant` with that AADSTS number and suberror.
    InvalidGrant(u32, &'static str),
    /// `invalid_client` with that AADSTS number.
    InvalidClient(u32),
    /// Its duty, but that much later.
    Slow(Duration),
    /// Its duty, and then the connection breaks before the answer is out.
    Drop,
    /// Its duty, with `expires_in` as text.
    TextualExpiry,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Codes redeemed, those of devices among them.
    pub redeemed: u64,
    /// Tokens given to applications and machines.
    pub unattended: u64,
    /// Asks of a device that came too soon.
    pub too_soon: u64,
    /// Requests whose client was not known by its proof.
    pub unproven: u64,
    /// Refreshes granted.
    pub refreshes: u64,
    /// Requests to the token endpoint, faults included.
    pub requests: u64,
    /// Families ended because a used refresh token came again.
    pub reused: u64,
    /// Families given back.
    pub revoked: u64,
}

/// Whom an access token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Who signed in.
    pub user: User,
    /// What was granted.
    pub scopes: Vec<String>,
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) url: Url,
    pub(super) random: SystemRandom,
    pub(super) memory: Mutex<Memory>,
}

#[derive(Default)]
pub(super) struct Memory {
    pub(super) codes: HashMap<String, Code>,
    pub(super) devices: HashMap<String, Device>,
    pub(super) families: Vec<Family>,
    pub(super) refresh: HashMap<String, Renewing>,
    pub(super) access: HashMap<String, (usize, Timestamp)>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) every: Option<(u64, Fault)>,
    pub(super) life: Option<Duration>,
    pub(super) counters: Counters,
}

pub(super) struct Code {
    pub(super) family: usize,
    pub(super) challenge: String,
    pub(super) redirect: String,
    pub(super) until: Timestamp,
    pub(super) used: bool,
}

pub(super) struct Device {
    pub(super) user_code: String,
    pub(super) scopes: Vec<String>,
    pub(super) until: Timestamp,
    pub(super) asked: Option<std::time::Instant>,
    pub(super) interval: Duration,
    pub(super) decided: Option<Result<usize, ()>>,
}

pub(super) struct Family {
    pub(super) user: User,
    pub(super) scopes: Vec<String>,
    pub(super) roles: Option<Vec<String>>,
    pub(super) alive: bool,
}

pub(super) struct Renewing {
    pub(super) family: usize,
    pub(super) used: Option<Timestamp>,
}

impl Shared {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    pub(super) fn after(&self, wait: Duration) -> Timestamp {
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        self.now().saturating_add(wait).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn fresh(&self, prefix: &str) -> String {
        let mut bytes = [0_u8; 30];
        // Without randomness there is no sandbox; the empty token is refused everywhere.
        match self.random.fill(&mut bytes) {
            Ok(()) => format!("{prefix}-{}", BASE64.encode(bytes)),
            Err(_) => String::new(),
        }
    }

    pub(super) fn user(&self, address: &str) -> Option<&User> {
        let users = &self.settings.users;
        users
            .iter()
            .find(|user| user.address.eq_ignore_ascii_case(address))
    }
}

//! One account's grant: held, renewed by one at a time, and never dropped.
//!
//! A renewal goes like this, and a crash may fall between any two steps:
//!
//! 1. one task of this process, then one process of this machine (a file lock);
//! 2. read the grant again: whoever held the lock before may have renewed it;
//! 3. note durably that a refresh began;
//! 4. ask the token endpoint;
//! 5. store the answer durably; only then hand the new access token out.
//!
//! A crash after 4 leaves the note of 3: the old refresh token is tried once more (issuers that
//! rotate mostly allow that for a while), and if it is refused a person is needed. If 5 fails
//! because the disk is full, the answer stays in memory and the lock held, so that nobody else uses
//! up the old token, and storing is tried again.

use crate::backoff;
use crate::clock::Clock;
use crate::config::known;
use crate::config::secret::Secret;
use crate::entry::Reason;
use crate::oauth::grants::{Answer, Client};
use crate::oauth::hand::Hand;
use crate::oauth::plan::{self, Decision, Want, after, signed};
use crate::oauth::record::{Put, Record};
use crate::oauth::refusal::{self, Failure, Outcome};
use crate::oauth::token::{AccessToken, TokenError};
use crate::oauth::vault::{Kept, Standing, Trouble};
use jiff::Timestamp;
use ring::rand::SecureRandom as _;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Waits between passing failures.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// A refused token is replaced at most so often: mails that are all refused must not make a storm.
const FORCED: Duration = Duration::from_secs(60);
/// A clock that is off by more is worth a warning: assertions and tokens have times in them.
const SKEW: i64 = 60;
/// Passing failures become a case for people when access has ended and there were so many.
const MANY: u32 = 6;

/// One account's grant and all that is needed to renew it.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) record: Record,
    pub(super) client: Arc<Client>,
    /// Whom its token speaks for, where the grant has one a mailbox.
    mailbox: Option<String>,
    clock: Clock,
    pub(super) hand: Hand,
    flight: tokio::sync::Mutex<Flight>,
}

/// What the one who renews knows.
#[derive(Debug, Default)]
struct Flight {
    /// An answer that could not be stored yet, and the lock that keeps others away meanwhile.
    unsaved: Option<(Kept, File)>,
    /// When a refused token was last replaced, and of which grant: that of which sign-in.
    forced: Option<(Timestamp, Timestamp)>,
}

impl Holder {
    pub(super) fn new(record: Record, client: Arc<Client>, mailbox: Option<String>) -> Holder {
        let clock = record.clock.clone();
        Holder {
            record,
            client,
            mailbox,
            hand: Hand::new(clock.clone()),
            clock,
            flight: tokio::sync::Mutex::default(),
        }
    }

    /// A token as wanted. Run it in a task of its own: if it is dropped between the server's answer
    /// and its storing, the grant may be lost.
    pub(super) async fn obtain(&self, want: Want) -> Result<AccessToken, TokenError> {
        let mut flight = match self.flight.try_lock() {
            Ok(flight) => flight,
            // Somebody renews it right now; what still works need not wait for that.
            Err(_) => match self.hand.usable().filter(|_| matches!(want, Want::Life)) {
                Some(token) => return Ok(token),
                None => self.flight.lock().await,
            },
        };
        if matches!(want, Want::Life)
            && let Some(token) = self.hand.ready()
        {
            return Ok(token);
        }
        if let Some((kept, lock)) = flight.unsaved.take() {
            return self.keep(&mut flight, kept, lock, &want).await;
        }
        // Others change the grant too: a few rounds until what was read is what is written over.
        for _ in 0..4 {
            let (_, kept) = self.record.load().await?;
            if let Some(done) = self.settled(&mut flight, &kept, &want) {
                return done;
            }
            let lock = match self.record.hold(&kept).await? {
                Some(lock) => lock,
                None => return self.busy(&kept, &want),
            };
            let (version, kept) = self.record.load().await?;
            if let Some(done) = self.settled(&mut flight, &kept, &want) {
                return done;
            }
            match self.renew(&mut flight, version, kept, lock, &want).await {
                Err(Again::Stale) => {}
                Err(Again::Not(error)) => return Err(error),
                Ok(token) => return Ok(token),
            }
        }
        Err(self
            .record
            .transient("its grant is being changed by others over and over", None))
    }

    /// What is to be done without asking the server, if that is all.
    fn settled(
        &self,
        flight: &mut Flight,
        kept: &Kept,
        want: &Want,
    ) -> Option<Result<AccessToken, TokenError>> {
        let now = self.clock.now();
        let own = self.own();
        let decision = plan::decide(kept, want, own, &self.record.name, now);
        if decision == Decision::Renew && matches!(want, Want::Instead(_)) {
            let lately = flight
                .forced
                .is_some_and(|(at, of)| of == kept.obtained && now < after(at, signed(FORCED)));
            if lately && kept.expires > now {
                return Some(Ok(self.hand.remember(kept)));
            }
        }
        Some(match decision {
            Decision::Renew => return None,
            Decision::Use => Ok(self.hand.remember(kept)),
            Decision::Wait(until, reason) => Err(self
                .record
                .transient(&in_full(&reason), Some(self.clock.until(until)))),
            Decision::Person(reason) => Err(TokenError::NeedsPerson(reason)),
            Decision::Config(reason) => Err(TokenError::NeedsConfig(reason)),
        })
    }

    /// Whose grant it must be to be of use.
    pub(super) fn own(&self) -> &str {
        match &self.record.own {
            Some(own) => own,
            None => &self.client.settings().client_id,
        }
    }

    /// A new token where the old one was not needed for it: no step can lose anything.
    async fn obtain_anew(
        &self,
        flight: &mut Flight,
        version: Option<i64>,
        kept: Kept,
        lock: File,
        want: &Want,
    ) -> Result<AccessToken, Again> {
        tracing::debug!(account = self.record.name, "asking for a token");
        match self.client.obtain(self.mailbox.as_deref()).await {
            Ok(answer) => {
                let mut kept = self.renewed(kept, answer);
                kept.obtained = kept.refreshed;
                self.keep(flight, kept, lock, want).await.map_err(Again::Not)
            }
            Err(failure) => self
                .failed(version, kept, &failure, None, want)
                .await
                .map_err(Again::Not),
        }
    }

    /// Steps 3 to 5. The lock is held throughout.
    async fn renew(
        &self,
        flight: &mut Flight,
        version: Option<i64>,
        mut kept: Kept,
        lock: File,
        want: &Want,
    ) -> Result<AccessToken, Again> {
        if kept.unattended {
            if matches!(want, Want::Instead(_)) {
                flight.forced = Some((self.clock.now(), kept.obtained));
            }
            return self.obtain_anew(flight, version, kept, lock, want).await;
        }
        let Some(refresh) = kept.refresh.clone() else {
            return Err(Again::Not(self.record.transient("it has no refresh token", None)));
        };
        let interrupted = kept.refresh_began;
        if let Some(began) = interrupted {
            tracing::warn!(account = self.record.name, %began, "a refresh was cut off before its answer was stored; trying its token once more");
        }
        if matches!(want, Want::Instead(_)) {
            flight.forced = Some((self.clock.now(), kept.obtained));
        }
        // What still works is at hand for those who come meanwhile, and if the answer cannot be stored.
        self.hand.remember(&kept);
        kept.refresh_began = Some(self.clock.now());
        let version = match self.record.put(version, &kept).await {
            Ok(version) => Some(version),
            Err(Put::Stale) => return Err(Again::Stale),
            // What cannot be noted is not begun: the token in hand may be the last one that works.
            Err(Put::Not(error)) => return self.or_usable(&kept, want, error).map_err(Again::Not),
        };
        tracing::debug!(account = self.record.name, "renewing");
        let mut result = self.client.refresh(&refresh, &kept.scopes).await;
        if matches!(&result, Err(Failure::Unreached { sent: true, .. })) {
            // The answer was lost on the way. Where a used token is taken again, it is so at once.
            result = self.client.refresh(&refresh, &kept.scopes).await;
        }
        if let Err(failure) = &result
            && self.previous_may_help(&kept, failure)
            && let Some(previous) = kept.previous.take()
        {
            result = self.client.refresh(&previous, &kept.scopes).await;
        }
        match result {
            Ok(answer) => {
                let kept = self.renewed(kept, answer);
                self.keep(flight, kept, lock, want).await.map_err(Again::Not)
            }
            Err(failure) => self
                .failed(version, kept, &failure, interrupted, want)
                .await
                .map_err(Again::Not),
        }
    }

    /// The current token was refused before and is refused again, for nothing but itself: then
    /// there is nothing to lose by the one before it.
    fn previous_may_help(&self, kept: &Kept, failure: &Failure) -> bool {
        let Failure::Refused { refusal, .. } = failure else {
            return false;
        };
        let suberror = refusal.symptom.oauth_suberror.as_deref();
        matches!(kept.standing, Standing::NeedsPerson { .. })
            && refusal.symptom.oauth_error.as_deref() == Some("invalid_grant")
            && matches!(suberror, None | Some("bad_token" | "token_expired"))
    }

    fn renewed(&self, kept: Kept, answer: Answer) -> Kept {
        let now = self.clock.now();
        let skew = answer.skew.map(|skew| skew.as_secs());
        if let Some(skew) = skew.filter(|skew| skew.abs() > SKEW) {
            tracing::warn!(
                account = self.record.name,
                seconds = skew,
                "the server's clock and ours differ; check the time service of this machine"
            );
        }
        let (refresh, previous) = match answer.refresh {
            Some(new) if kept.refresh.as_ref().map(Secret::expose) != Some(new.expose()) => {
                (Some(new), kept.refresh)
            }
            _ => (kept.refresh, kept.previous),
        };
        Kept {
            scopes: match (kept.unattended, answer.scopes) {
                (true, Some(scopes)) => scopes,
                _ => kept.scopes,
            },
            access: answer.access,
            refresh,
            previous,
            token_type: answer.token_type,
            expires: after(now, signed(answer.life)),
            life: answer.life,
            refreshed: now,
            refresh_began: None,
            standing: Standing::Valid,
            trouble: None,
            claims: None,
            skew,
            ..kept
        }
    }

    /// Step 5. What cannot be stored stays in `flight` with the lock.
    async fn keep(
        &self,
        flight: &mut Flight,
        kept: Kept,
        lock: File,
        want: &Want,
    ) -> Result<AccessToken, TokenError> {
        for _ in 0..4 {
            let version = match self.record.load().await {
                Ok((version, there)) if kept.unattended || there.obtained == kept.obtained => version,
                // A person signed in anew meanwhile, or gave the grant up: that counts.
                Ok((_, there)) => {
                    drop(lock);
                    let error = self
                        .record
                        .transient("somebody has just signed in anew", Some(Duration::ZERO));
                    return self.or_usable(&there, want, error);
                }
                Err(gone @ TokenError::NeedsPerson(_)) => {
                    self.hand.forget();
                    return Err(gone);
                }
                Err(error) => {
                    flight.unsaved = Some((kept.clone(), lock));
                    return self.unstored(&kept, want, &error);
                }
            };
            match self.record.put(version, &kept).await {
                Ok(_) => {
                    drop(lock);
                    tracing::info!(account = self.record.name, expires = %kept.expires, "renewed");
                    self.record.close_case().await;
                    return Ok(self.hand.remember(&kept));
                }
                Err(Put::Stale) => {}
                Err(Put::Not(error)) => {
                    flight.unsaved = Some((kept.clone(), lock));
                    return self.unstored(&kept, want, &error);
                }
            }
        }
        flight.unsaved = Some((kept.clone(), lock));
        self.unstored(
            &kept,
            want,
            &self
                .record
                .transient("its grant is being changed by others", None),
        )
    }

    /// The new grant is in memory only: its access token is not handed out before it is durable.
    fn unstored(&self, kept: &Kept, want: &Want, error: &TokenError) -> Result<AccessToken, TokenError> {
        tracing::error!(account = self.record.name, %error, "a renewed grant cannot be stored; it is kept in memory and storing is tried again");
        match self.hand.usable().filter(|token| match want {
            Want::Instead(refused) => token.secret().expose() != refused.expose(),
            _ => token.secret().expose() != kept.access.expose(),
        }) {
            Some(token) => Ok(token),
            None => Err(self.record.transient(
                &format!("its renewed grant cannot be stored: {error}"),
                Some(FIRST),
            )),
        }
    }

    async fn failed(
        &self,
        version: Option<i64>,
        mut kept: Kept,
        failure: &Failure,
        interrupted: Option<Timestamp>,
        want: &Want,
    ) -> Result<AccessToken, TokenError> {
        let now = self.clock.now();
        let provider = self.client.settings().provider;
        let mut reason = refusal::reason(
            failure,
            provider,
            &format!("to renew the access of account `{}`", self.record.name),
        );
        known::of_grant(&self.record.name, self.client.settings()).fill_in(&mut reason);
        if let Failure::Refused { refusal, .. } = failure {
            kept.claims = refusal.claims.clone().or(kept.claims);
        }
        let error = match refusal::judge(failure, provider) {
            Outcome::Transient => {
                let failures = kept
                    .trouble
                    .as_ref()
                    .map_or(1, |trouble| trouble.failures.saturating_add(1));
                let asked = refusal::retry_after(failure);
                let wait = backoff::wait(failures, FIRST, LONGEST, asked, chance());
                let trouble = Trouble {
                    failures,
                    since: kept.trouble.as_ref().map_or(now, |trouble| trouble.since),
                    not_before: after(now, signed(wait)),
                    reason: reason.clone(),
                };
                // Whoever never got the request, or said that it was too much, has rotated nothing.
                let untouched = match failure {
                    Failure::Unreached { sent, .. } => !sent,
                    Failure::Refused { refusal, .. } => {
                        refusal.symptom.http_status.is_some_and(|status| status < 500)
                    }
                    Failure::Unreadable { .. } => false,
                    Failure::Setting(_) => true,
                };
                if untouched {
                    kept.refresh_began = interrupted;
                }
                tracing::warn!(
                    account = self.record.name,
                    failures,
                    wait_s = wait.as_secs(),
                    reason = reason.text,
                    reply = reason.reply,
                    "renewal failed for now"
                );
                if failures >= MANY && plan::left(&kept, now).is_zero() {
                    self.record.open_case(&reason).await;
                }
                kept.trouble = Some(trouble);
                self.record.transient(&in_full(&reason), Some(wait))
            }
            outcome => {
                if let Some(began) = interrupted.filter(|_| outcome == Outcome::NeedsPerson) {
                    reason.text = format!(
                        "{}; a refresh begun at {began} was cut off before its answer was stored, and the token made then is lost",
                        reason.text
                    );
                }
                kept.refresh_began = None;
                kept.trouble = None;
                let since = match (&kept.standing, outcome) {
                    (Standing::NeedsPerson { since, .. }, Outcome::NeedsPerson) => *since,
                    (Standing::NeedsConfig { since, .. }, Outcome::NeedsConfig) => *since,
                    _ => now,
                };
                let (told, probed) = (reason.clone(), now);
                let (standing, error) = if outcome == Outcome::NeedsPerson {
                    if !kept.unattended {
                        reason
                            .steps
                            .push(format!("Sign in again: tidings auth login {}", self.record.name));
                    }
                    (
                        Standing::NeedsPerson {
                            reason: reason.clone(),
                            since,
                            probed,
                        },
                        TokenError::NeedsPerson(reason.clone()),
                    )
                } else {
                    (
                        Standing::NeedsConfig {
                            reason: reason.clone(),
                            since,
                            probed,
                        },
                        TokenError::NeedsConfig(reason.clone()),
                    )
                };
                kept.standing = standing;
                tracing::error!(
                    account = self.record.name,
                    reason = told.text,
                    reply = told.reply,
                    "the grant needs somebody"
                );
                self.record.open_case(&reason).await;
                error
            }
        };
        // The note of the failure may lose against somebody who wrote a better grant meanwhile.
        if let Err(Put::Not(unstored)) = self.record.put(version, &kept).await {
            tracing::error!(account = self.record.name, error = %unstored, "cannot note that a renewal failed");
        }
        self.or_usable(&kept, want, error)
    }

    /// The token in hand, where it still works and is not the one that was refused.
    fn or_usable(&self, kept: &Kept, want: &Want, error: TokenError) -> Result<AccessToken, TokenError> {
        let refused = matches!(want, Want::Instead(token) if token.expose() == kept.access.expose());
        let works = plan::usable(plan::left(kept, self.clock.now()), kept.life);
        if works && !refused && !matches!(want, Want::Now) {
            Ok(self.hand.remember(kept))
        } else {
            Err(error)
        }
    }

    /// Another process has held the lock for longer than a renewal takes.
    fn busy(&self, kept: &Kept, want: &Want) -> Result<AccessToken, TokenError> {
        let error = self
            .record
            .transient("another process has been renewing it for too long", Some(FIRST));
        self.or_usable(kept, want, error)
    }

    /// What is due by itself; when to look again.
    pub(super) async fn tend(self: Arc<Self>) -> Timestamp {
        let used = self.hand.used();
        let due = match self.record.load().await {
            Ok((_, kept)) => {
                let due = plan::due(&kept, used);
                if due > self.clock.now() {
                    if kept.standing == Standing::Valid && kept.trouble.is_none() {
                        self.record.close_case().await;
                    }
                    return due;
                }
                let holder = self.clone();
                let renewing = tokio::spawn(async move { holder.obtain(Want::Due { used }).await });
                match renewing.await {
                    Ok(Err(TokenError::NeedsPerson(reason) | TokenError::NeedsConfig(reason))) => {
                        self.record.open_case(&reason).await;
                    }
                    Ok(Err(error)) => tracing::debug!(account = self.record.name, %error, "not renewed"),
                    Ok(Ok(_)) | Err(_) => {}
                }
                match self.record.load().await {
                    Ok((_, kept)) => plan::due(&kept, used),
                    Err(_) => Timestamp::MAX,
                }
            }
            Err(TokenError::NeedsPerson(reason) | TokenError::NeedsConfig(reason)) => {
                self.hand.forget();
                self.record.open_case(&reason).await;
                Timestamp::MAX
            }
            Err(error) => {
                tracing::error!(account = self.record.name, %error, "cannot look after the grant");
                Timestamp::MAX
            }
        };
        // Never at once again: what is due and was not done has its reason.
        due.max(after(self.clock.now(), signed(Duration::from_secs(1))))
    }

    /// Waits until nobody here renews; tries once more to store what could not be stored.
    pub(super) async fn quiet(&self) {
        let mut flight = self.flight.lock().await;
        if let Some((kept, lock)) = flight.unsaved.take()
            && let Err(error) = self.keep(&mut flight, kept, lock, &Want::Life).await
        {
            tracing::error!(account = self.record.name, %error, "a renewed grant is lost with this process; somebody may have to sign in again");
        }
    }
}

enum Again {
    Stale,
    Not(TokenError),
}

/// A reason with the server's own words.
fn in_full(reason: &Reason) -> String {
    match &reason.reply {
        Some(reply) => format!("{} ({reply})", reason.text.trim_end_matches('.')),
        None => reason.text.clone(),
    }
}

/// A random part, 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0_u8; 4];
    match ring::rand::SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

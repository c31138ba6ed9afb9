//! Credentials never end unnoticed: what is about to end is a trouble 30, 14, 7 and 1 days ahead, and what does not
//! work any more is told again at growing intervals, until it is mended.
//!
//! ```text
//!   ends:ACCOUNT:WHAT   opened with the first word, told again with each further one, closed when the end has moved
//!   account:ACCOUNT     opened and closed by the token keeper;   told again a day, two, four, .. after it was opened
//!   sender:ACCOUNT      opened and closed by attempts to send;   likewise
//! ```
//!
//! What was told is a mark in the store, so that no restart tells it twice. Where no mail can tell, because no
//! account is well, the log, the exit code of `run --once` and the dead-man's switch do.

use crate::clock::Clock;
use crate::config::known;
use crate::config::settings::{Account, Credential, OAuth2, Settings, Transport};
use crate::ends::{self, Stage, Told};
use crate::entry::Reason;
use crate::oauth::keeper::{GrantStatus, Keeper};
use crate::store::{Case, NewCase, Store, StoreError};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Cases of what is about to end begin with this.
pub const CASES: &str = "ends:";
/// Marks of what was told begin with this.
const MARKS: &str = "told:";
/// How often one looks.
const LOOK: Duration = Duration::from_secs(3600);
/// Microsoft ends a grant that nobody renewed for that long.
const IDLE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Something of an account that ends.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Whose.
    pub account: String,
    /// Which: `secret`, `grant`, `idle`. One of each for an account.
    pub what: &'static str,
    /// For people: `the client secret`.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// How long the whole lasts, where that is known.
    pub life: Option<SignedDuration>,
    /// What to do about it.
    pub steps: Vec<String>,
    /// Who can.
    pub who: String,
}

impl End {
    fn key(&self) -> String {
        format!("{CASES}{}:{}", self.account, self.what)
    }

    /// The reason to tell at that stage.
    fn reason(&self, now: Timestamp, zone: &TimeZone) -> Reason {
        let day = self.at.to_zoned(zone.clone()).date();
        let today = now.to_zoned(zone.clone()).date();
        let days = today.until(day).map(|span| span.get_days()).unwrap_or_default();
        let when = match days {
            ..0 => format!("ended on {day}"),
            0 if self.at <= now => format!("ended today, {day}"),
            0 => format!("ends today, {day}"),
            1 => format!("ends tomorrow, {day}"),
            days => format!("ends on {day}, in {days} days"),
        };
        Reason {
            steps: self.steps.clone(),
            who: Some(self.who.as_str().into()),
            ..Reason::new(format!("{} of account `{}` {when}", self.name, self.account))
        }
    }
}

/// What of an account ends, as far as anybody knows. Pure. Further ends of an account belong here.
pub fn ends_of(account: &Account, oauth2: &OAuth2, grant: &GrantStatus, zone: &TimeZone) -> Vec<End> {
    let values = known::of_grant(&account.name, oauth2);
    let fill = |steps: &[&str]| steps.iter().map(|step| values.fill(step)).collect::<Vec<_>>();
    let end = |what, name: &str, at, life, steps: &[&str], who: &str| End {
        account: account.name.clone(),
        what,
        name: name.to_owned(),
        at,
        life,
        steps: fill(steps),
        who: values.fill(who),
    };
    let mut ends = Vec::new();
    if let Some(at) = oauth2
        .secret_expires
        .and_then(|date| date.to_zoned(zone.clone()).ok())
    {
        let place = match oauth2.provider {
            crate::advice::Provider::Microsoft => {
                "Make a new one before that: <portal>/#view/Microsoft_AAD_RegisteredApps/ApplicationMenuBlade/~/Credentials/appId/<client id>, New client secret; copy its 'Value'."
            }
            crate::advice::Provider::Google => {
                "Make a new one before that: https://console.cloud.google.com/apis/credentials, the client <client id>, Add secret."
            }
            crate::advice::Provider::Generic => {
                "Make a new one for client <client id> at the provider before that."
            }
        };
        let steps = [
            place,
            "Put it where the settings read it from (<secret>), and set `secret_expires:` to its date. Nobody has to sign in again.",
            "See that it works: tidings auth refresh <account>",
        ];
        let who = "an owner of the application <client id>, with whoever looks after this setup";
        ends.push(end(
            "secret",
            "the client secret",
            at.timestamp(),
            None,
            &steps,
            who,
        ));
    }
    if let (None, Some(at)) = (
        oauth2.secret_expires,
        grant
            .secret_expires
            .and_then(|date| date.to_zoned(zone.clone()).ok()),
    ) {
        // What the certificate says of itself.
        let steps = [
            "Make a new one before that, and register it: <portal>/#view/Microsoft_AAD_RegisteredApps/ApplicationMenuBlade/~/Credentials/appId/<client id>, tab Certificates (elsewhere: the provider's page of client <client id>).",
            "Put it and its key where the settings read them from. Both may be given meanwhile.",
            "See that it works: tidings auth refresh <account>",
        ];
        let who = "an owner of the application <client id>, with whoever looks after this setup";
        ends.push(end(
            "certificate",
            "the certificate",
            at.timestamp(),
            None,
            &steps,
            who,
        ));
    }
    let signs_in = ["Sign in again before that, as <login>: tidings auth login <account>"];
    let who = "<login>, by signing in again";
    if let (Some(life), Some(obtained)) = (oauth2.grant_life, grant.obtained) {
        let life = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
        let at = obtained.saturating_add(life).unwrap_or(Timestamp::MAX);
        ends.push(end("grant", "the sign-in", at, Some(life), &signs_in, who));
    }
    if let (crate::advice::Provider::Microsoft, true, Some(refreshed)) = (
        oauth2.provider,
        grant.renewable && !oauth2.unattended(),
        grant.refreshed,
    ) {
        // Renewed daily while we run, so this is only told where that has failed for two months.
        let at = refreshed.saturating_add(IDLE).unwrap_or(Timestamp::MAX);
        let steps = [
            "It could not be renewed since then: tidings doctor <account>",
            "If nothing helps, sign in again: tidings auth login <account>",
        ];
        ends.push(end("idle", "the unused grant", at, Some(IDLE), &steps, who));
    }
    ends
}

/// Looks now and then until stopped.
pub async fn run(
    store: Store,
    mut settings: watch::Receiver<Arc<Settings>>,
    keeper: watch::Receiver<Arc<Keeper>>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = settings.changed() => {}
            _ = every.tick() => {}
        }
        let (settings, keeper) = (Arc::clone(&settings.borrow()), Arc::clone(&keeper.borrow()));
        if let Err(error) = look(&store, &settings, &keeper, clock.now()).await {
            tracing::error!(%error, "cannot look after what is about to end");
        }
    }
}

/// One look: tells what is due, closes what has moved away. Returns the accounts whose credential ends within the
/// day or has ended.
pub async fn look(
    store: &Store,
    settings: &Settings,
    keeper: &Keeper,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let zone = &settings.defaults.timezone;
    let mut ends = Vec::new();
    for account in settings.accounts.values() {
        if let Credential::OAuth2(oauth2) = &account.credential {
            let grant = keeper.status(&account.name).await;
            ends.extend(ends_of(account, oauth2, &grant, zone));
        }
    }
    let told: Vec<(String, Told)> = store
        .marks(MARKS)
        .await?
        .into_iter()
        .filter_map(|(key, mark)| {
            let key = key.strip_prefix(MARKS)?.to_owned();
            Some((key, serde_json::from_value(mark).ok()?))
        })
        .collect();
    let last = |key: &str| told.iter().find(|(known, _)| known == key).map(|(_, told)| told);
    let open = store.open_cases().await?;
    let mut urgent = BTreeSet::new();
    for end in &ends {
        let key = end.key();
        let Some(stage) = ends::stage(end.at, end.life, now) else {
            continue;
        };
        if stage >= -1 {
            urgent.insert(end.account.clone());
        }
        if let Some(stage) = ends::due(end.at, end.life, now, last(&key)) {
            let case = NewCase {
                key,
                kind: "account".to_owned(),
                subject: end.account.clone(),
                reason: end.reason(now, zone),
            };
            tell(store, case, end.at, stage, true).await?;
        }
    }
    for case in open {
        if case.key.starts_with(CASES) {
            let still = |end: &End| end.key() == case.key && ends::stage(end.at, end.life, now).is_some();
            if !ends.iter().any(still) {
                store.close_case(&case.key).await?;
                store.delete_marks(&format!("{MARKS}{}", case.key)).await?;
                tracing::info!(account = case.subject, "what was about to end was renewed");
            }
        } else if is_broken(&case)
            && let Some(stage) = ends::due(case.opened, None, now, last(&case.key)).filter(|stage| *stage > 0)
        {
            let again = NewCase {
                key: case.key.clone(),
                kind: case.kind.clone(),
                subject: case.subject.clone(),
                reason: case.reason.clone(),
            };
            tell(store, again, case.opened, stage, false).await?;
        }
    }
    Ok(urgent.into_iter().collect())
}

/// Whether it is about an account that needs a person.
fn is_broken(case: &Case) -> bool {
    case.kind == "account" && (case.key.starts_with("account:") || case.key.starts_with("sender:"))
}

/// Tells, and notes that it was told. A crash between the two tells nothing twice: the event of a stage has a key.
async fn tell(
    store: &Store,
    case: NewCase,
    end: Timestamp,
    stage: Stage,
    opens: bool,
) -> Result<(), StoreError> {
    let (key, account, text) = (case.key.clone(), case.subject.clone(), case.reason.text.clone());
    let tag = format!("{}:{stage}", end.as_second());
    if !opens || !store.open_case(case.clone()).await? {
        store.tell_case(case, tag).await?;
    }
    if stage < 0 {
        tracing::warn!(account, text, "a credential is about to end");
    } else {
        tracing::error!(account, text, "an account needs a person");
    }
    store
        .set_marks(vec![(format!("{MARKS}{key}"), json!(Told { end, stage }))])
        .await
}

/// Why nobody could be told by mail: every account that sends needs a person.
pub fn unheard(settings: &Settings, cases: &[Case]) -> Option<String> {
    let ailing: BTreeSet<&str> = cases
        .iter()
        .filter(|case| is_broken(case))
        .map(|case| case.subject.as_str())
        .collect();
    let mut sending = settings
        .accounts
        .values()
        .filter(|account| !matches!(account.transport, Transport::File { .. }))
        .peekable();
    sending.peek()?;
    sending
        .all(|account| ailing.contains(account.name.as_str()))
        .then(|| "no account can send, so nobody can be told of it by mail".to_owned())
}

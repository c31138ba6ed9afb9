//! The catalog itself: its entries as they are written, and how well each fits. Pure, but for the one that
//! was adopted.
//!
//! `catalog.yaml` is compiled in. A setup may bring an `advice.yaml` of the same form: an entry of it replaces
//! the one with the same id, or goes before all others.

use crate::advice::values::Values;
use crate::advice::{Advice, Class, Provider, Stage, Symptom};
use serde::Deserialize;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// All entries, in the order that breaks ties.
#[derive(Debug)]
pub struct Catalog {
    items: Vec<Item>,
}

static SHIPPED: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    // It cannot fail at a user's: a test reads the same text, and an unknown key is an error in it.
    let items = read(include_str!("catalog.yaml")).unwrap_or_default();
    Arc::new(Catalog { items })
});

/// The one this process goes by. One for all, like the language it speaks: every refusal is explained
/// alike, wherever it is met.
static ADOPTED: RwLock<Option<Arc<Catalog>>> = RwLock::new(None);

fn read(text: &str) -> Result<Vec<Item>, serde_saphyr::Error> {
    serde_saphyr::from_str(text)
}

impl Catalog {
    /// The shipped one.
    pub fn shipped() -> Arc<Catalog> {
        Arc::clone(&SHIPPED)
    }

    /// The shipped one with the entries of `own` before it: a YAML list of the same form. The error says
    /// where the text is wrong.
    pub fn with(own: &str) -> Result<Catalog, String> {
        let mut items = read(own).map_err(|error| error.to_string())?;
        for item in &items {
            if item.meaning.trim().is_empty() || item.advice.is_empty() {
                return Err(format!(
                    "entry `{}` needs a `meaning` and at least one line of `advice`",
                    item.id
                ));
            }
            if items.iter().filter(|other| other.id == item.id).count() > 1 {
                return Err(format!("entry `{}` is there twice", item.id));
            }
        }
        let own: Vec<String> = items.iter().map(|item| item.id.clone()).collect();
        items.extend(
            SHIPPED
                .items
                .iter()
                .filter(|item| !own.contains(&item.id))
                .cloned(),
        );
        Ok(Catalog { items })
    }

    /// The entry that fits best.
    ///
    /// Ranked: what we noticed ourselves; matched by AADSTS number; the account's provider before generic; more
    /// keys matched; order.
    pub fn find(&self, symptom: &Symptom, provider: Provider) -> Option<&Item> {
        let seen = Seen::of(symptom);
        self.items
            .iter()
            .filter_map(|item| item.fit(&seen, provider).map(|rank| (rank, item)))
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, item)| item)
    }

    /// All entries.
    pub fn items(&self) -> &[Item] {
        &self.items
    }
}

/// The catalog this process goes by.
pub fn current() -> Arc<Catalog> {
    let adopted = ADOPTED.read().unwrap_or_else(PoisonError::into_inner);
    adopted.clone().unwrap_or_else(Catalog::shipped)
}

/// Goes by that one from now on; without one, by the shipped one.
pub fn adopt(catalog: Option<Arc<Catalog>>) {
    *ADOPTED.write().unwrap_or_else(PoisonError::into_inner) = catalog;
}

/// One entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its name.
    pub id: String,
    /// Whose servers say so.
    pub provider: Provider,
    /// Where it is usually seen.
    pub stage: Stage,
    /// What must fit.
    #[serde(rename = "match")]
    pub keys: Keys,
    meaning: String,
    class: Class,
    #[serde(default)]
    who: Option<String>,
    #[serde(default)]
    takes: Option<String>,
    advice: Vec<String>,
    /// Where it was found; for whoever doubts an entry.
    #[serde(default)]
    #[allow(dead_code, reason = "kept for readers of the catalog, not shown")]
    source: String,
}

/// What must fit; every key that is given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in a symptom")]
pub struct Keys {
    pub smtp_code: Option<u16>,
    pub enhanced: Option<String>,
    pub aadsts: Option<u32>,
    pub oauth_error: Option<String>,
    pub oauth_suberror: Option<String>,
    pub http_status: Option<u16>,
    pub graph_code: Option<String>,
    pub text_contains: Vec<String>,
}

/// A symptom, made ready to be compared.
struct Seen<'a> {
    symptom: &'a Symptom,
    code: Option<u16>,
    aadsts: Option<u32>,
    /// Lower case, one line, without repeated enhanced codes.
    text: String,
    /// A server spoke: a `local:` in the text is then its word, not ours.
    from_server: bool,
}

impl<'a> Seen<'a> {
    fn of(symptom: &'a Symptom) -> Seen<'a> {
        // 552 to RCPT without more means "too many recipients", as 452 does (RFC 5321 4.5.3.1.10).
        let too_many =
            symptom.stage == Some(Stage::SmtpRcpt) && symptom.code == Some(552) && symptom.enhanced.is_none();
        let mut text = symptom.text.to_lowercase();
        if let Some(enhanced) = &symptom.enhanced {
            text = text
                .replacen(" / ", " ", usize::MAX)
                .replace(&format!(" {enhanced} "), " ");
        } else {
            text = text.replace(" / ", " ");
        }
        Seen {
            symptom,
            code: if too_many { Some(452) } else { symptom.code },
            aadsts: symptom.aadsts.or_else(|| aadsts_in(&symptom.text)),
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
            from_server: symptom.code.is_some()
                || symptom.http_status.is_some()
                || symptom.oauth_error.is_some(),
        }
    }

    fn contains(&self, fragment: &str) -> bool {
        if fragment.starts_with("local:") {
            return self
                .symptom
                .local
                .is_some_and(|local| local.fragment() == fragment)
                || (!self.from_server && self.text.contains(fragment));
        }
        self.text.contains(&fragment.to_lowercase())
    }
}

/// Greater fits better.
type Rank = (bool, bool, bool, usize);

impl Item {
    fn fit(&self, seen: &Seen<'_>, provider: Provider) -> Option<Rank> {
        let symptom = seen.symptom;
        let keys = &self.keys;
        let mut matched = 0;
        let mut all = true;
        let mut check = |given: bool, fits: bool| {
            if given {
                matched += 1;
                all &= fits;
            }
        };
        check(keys.smtp_code.is_some(), keys.smtp_code == seen.code);
        check(keys.aadsts.is_some(), keys.aadsts == seen.aadsts);
        check(
            keys.http_status.is_some(),
            keys.http_status == symptom.http_status,
        );
        check(
            keys.oauth_error.is_some(),
            keys.oauth_error == symptom.oauth_error,
        );
        check(
            keys.oauth_suberror.is_some(),
            keys.oauth_suberror == symptom.oauth_suberror,
        );
        check(keys.graph_code.is_some(), keys.graph_code == symptom.graph_code);
        if let Some(wanted) = &keys.enhanced {
            check(
                true,
                symptom
                    .enhanced
                    .as_deref()
                    .is_some_and(|seen| enhanced_fits(wanted, seen)),
            );
        }
        if !keys.text_contains.is_empty() {
            check(
                true,
                keys.text_contains.iter().any(|fragment| seen.contains(fragment)),
            );
        }
        if !all || matched == 0 {
            return None;
        }
        let by_aadsts = keys.aadsts.is_some();
        let by_us = keys
            .text_contains
            .iter()
            .any(|fragment| fragment.starts_with("local:"));
        let own = self.provider == provider;
        if !(own || by_aadsts || self.provider == Provider::Generic) {
            return None;
        }
        if matched == 1 && keys.http_status.is_some() && symptom.stage != Some(self.stage) {
            return None;
        }
        may_follow(self.class, symptom.stage).then_some((by_us, by_aadsts, own, matched))
    }

    /// What it says, with the account's own values filled in.
    pub fn advice(&self, values: &Values) -> Advice {
        let fill = |text: &String| values.fill(text);
        Advice {
            id: self.id.clone(),
            class: self.class,
            meaning: fill(&self.meaning),
            steps: self.advice.iter().map(fill).collect(),
            who: self
                .who
                .as_ref()
                .map(fill)
                .or_else(|| self.usually_by().map(|who| values.fill(who))),
            takes: self
                .takes
                .clone()
                .or_else(|| self.usually_takes().map(str::to_owned)),
            known: true,
        }
    }

    /// Who can mend what is of that kind, where the entry does not say.
    fn usually_by(&self) -> Option<&'static str> {
        use Class::*;
        let signing_in = matches!(self.stage, Stage::Authorize | Stage::Token);
        Some(match (self.class, self.provider) {
            (Retry | Throttle, _) => return None,
            (Reauthorize, _) => "<login>, by signing in again",
            (FixPermission, Provider::Microsoft) if signing_in => {
                "an administrator of the directory <tenant> (Entra ID)"
            }
            (FixPermission, Provider::Microsoft) => "an Exchange administrator of <tenant>",
            (FixPermission, Provider::Google) => "an administrator of the Google Workspace of <login domain>",
            (FixPermission, Provider::Generic) => "whoever runs <host>",
            (FixConfig, Provider::Microsoft) if signing_in => {
                "an owner of the app registration <client id>, with whoever looks after this setup"
            }
            (FixConfig, Provider::Google) if signing_in => {
                "an owner of the Google project of client <client id>, with whoever looks after this setup"
            }
            (FixConfig, _) => "whoever looks after this setup",
            (RejectRecipient | RejectMessage, _) => "whoever looks after the rule",
        })
    }

    /// How long that kind of change takes to bite. Who tries too soon takes a correct change back.
    fn usually_takes(&self) -> Option<&'static str> {
        use Class::*;
        let signing_in = matches!(self.stage, Stage::Authorize | Stage::Token);
        match (self.class, self.provider) {
            (FixPermission, Provider::Microsoft) if signing_in => Some("some minutes"),
            (FixPermission, Provider::Microsoft) => {
                Some("30 to 120 minutes at Exchange; leave the change in place meanwhile")
            }
            (FixPermission, Provider::Google) => Some("mostly minutes, up to 24 hours"),
            _ => None,
        }
    }
}

/// Whether a refusal at `stage` can be about what `class` blames. A server that turns away the
/// connection or the sign-in with 550 or 554 says nothing about recipient or message: to fail the
/// mail for it would be to lose it.
fn may_follow(class: Class, stage: Option<Stage>) -> bool {
    use Stage::*;
    match class {
        Class::RejectRecipient => !matches!(
            stage,
            Some(Authorize | Token | Connect | Tls | SmtpAuth | SmtpMail)
        ),
        Class::RejectMessage => !matches!(stage, Some(Authorize | Token | Connect | Tls | SmtpAuth)),
        _ => true,
    }
}

/// `wanted` is `x.y.z`, or `x.y.a-b` for a range in the last number.
fn enhanced_fits(wanted: &str, seen: &str) -> bool {
    let range = || {
        let (prefix, numbers) = wanted.rsplit_once('.')?;
        let (first, last) = numbers.split_once('-')?;
        let (seen_prefix, seen_last) = seen.rsplit_once('.')?;
        let bounds = first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?;
        Some(prefix == seen_prefix && bounds.contains(&seen_last.parse().ok()?))
    };
    wanted == seen || range().unwrap_or(false)
}

/// The number in the first `AADSTSnnn` of a text.
fn aadsts_in(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

//! How a grant is obtained and how the client proves who it is: what fits together.

use crate::advice::Provider;
use crate::config::certificate::Certificate;
use crate::config::check::Checker;
use crate::config::document::At;
use crate::config::preset::CONSUMERS;
use crate::config::raw::settings as raw;
use crate::config::settings::{CertificateFiles, Grant, KeyOf, Proof};
use jiff::Timestamp;

/// Keys that only some grants have.
const KEYS: [&str; 8] = [
    "client_secret",
    "certificate",
    "assertion",
    "service_account",
    "signing_key",
    "key_id",
    "redirect",
    "listen",
];

/// What is known of the account besides its `oauth2:`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// Whose servers, where a preset says so.
    pub(super) provider: Option<Provider>,
    /// Something may be there that is misspelled.
    pub(super) damaged: bool,
}

impl Checker<'_> {
    /// Understands grant and proofs; takes what it understood out of `raw`. `place` is `oauth2:`,
    /// `name` its key.
    pub(super) fn grant(
        &mut self,
        place: &At<'_>,
        name: &At<'_>,
        raw: &mut raw::OAuth2,
        around: Around,
    ) -> (Grant, Vec<Proof>) {
        let grant = raw.grant.unwrap_or(raw::Grant::AuthorizationCode);
        self.fits_provider(place, grant, around.provider);
        let word = word(grant);
        for key in KEYS.iter().filter(|key| place.has(key) && !means(grant, key)) {
            self.complain(
                place
                    .name(key)
                    .error(format!("`{key}` means nothing with `grant: {word}`"))
                    .hint("remove the one or the other"),
            );
        }
        let proofs = self.proofs(place, raw);
        let signs = raw.service_account.is_some() || raw.signing_key.is_some();
        let lacks = match grant {
            raw::Grant::ClientCredentials if proofs.is_empty() => Some((
                "how does the application prove who it is?",
                "add `certificate: { cert: FILE, key: FILE }`, `client_secret: { env: NAME }` or `assertion: { file: FILE }`",
            )),
            raw::Grant::JwtBearer if !signs => Some((
                "which key vouches for the mailboxes?",
                "add `service_account: { file: key.json }` (Google), or `signing_key: { file: key.pem }`",
            )),
            _ => None,
        };
        if let Some((error, hint)) = lacks.filter(|_| !around.damaged) {
            self.complain(name.error(error).hint(hint));
        }
        self.client_id(place, name, raw, grant, around);
        if grant == raw::Grant::ClientCredentials
            && around.provider == Some(Provider::Microsoft)
            && let Some(tenant) = raw
                .tenant
                .as_deref()
                .filter(|tenant| matches!(*tenant, "common" | "organizations" | CONSUMERS))
        {
            self.complain(
                place
                    .key("tenant")
                    .error(format!("an application has no rights in `{tenant}`"))
                    .hint("name the one directory: its domain or id"),
            );
        }
        let grant = match grant {
            raw::Grant::AuthorizationCode => Grant::AuthorizationCode,
            raw::Grant::DeviceCode => Grant::DeviceCode,
            raw::Grant::ClientCredentials => Grant::ClientCredentials,
            raw::Grant::ManagedIdentity => Grant::ManagedIdentity,
            raw::Grant::JwtBearer => match (raw.service_account.take(), raw.signing_key.take()) {
                (Some(key), other) => {
                    if other.is_some() {
                        self.complain(place.name("signing_key").error(
                            "the mailboxes are vouched for by a service account or by a key, not both",
                        ));
                    }
                    let spot = place.key("service_account");
                    KeyOf::ServiceAccount(self.secret(&spot, &place.name("service_account"), key)).into()
                }
                (None, Some(key)) => KeyOf::Client {
                    key: self.secret(&place.key("signing_key"), &place.name("signing_key"), key),
                    id: raw.key_id.take(),
                }
                .into(),
                (None, None) => Grant::AuthorizationCode,
            },
        };
        (grant, proofs)
    }

    /// Providers we know do not take every grant for mail.
    fn fits_provider(&mut self, place: &At<'_>, grant: raw::Grant, provider: Option<Provider>) {
        let (error, hint) = match (provider, grant) {
            (Some(Provider::Google), raw::Grant::DeviceCode) => (
                "Google gives no right to send mail to a device code",
                "use `authorization_code` (on a host without a browser: `auth login --paste`), or a service account with `jwt_bearer`",
            ),
            (Some(Provider::Google), raw::Grant::ClientCredentials) => (
                "Google has no mailboxes for an application of its own",
                "use a service account with `grant: jwt_bearer`",
            ),
            (Some(Provider::Google) | None, raw::Grant::ManagedIdentity) => (
                "only machines of Azure have an identity",
                "it belongs to `provider: microsoft365`",
            ),
            (Some(Provider::Microsoft), raw::Grant::JwtBearer) => (
                "Microsoft does not let a key vouch for a mailbox",
                "use `grant: client_credentials` with a certificate",
            ),
            _ => return,
        };
        self.complain(place.key("grant").error(error).hint(hint));
    }

    fn client_id(
        &mut self,
        place: &At<'_>,
        name: &At<'_>,
        raw: &raw::OAuth2,
        grant: raw::Grant,
        around: Around,
    ) {
        let hint = "the application (client) id of the app registration";
        match &raw.client_id {
            Some(id) if id.trim().is_empty() => {
                self.complain(place.key("client_id").error("the client id is empty").hint(hint));
            }
            None if !around.damaged
                && grant != raw::Grant::ManagedIdentity
                && raw.service_account.is_none() =>
            {
                self.complain(name.error("the key `client_id` is missing here").hint(hint));
            }
            _ => {}
        }
    }

    fn proofs(&mut self, place: &At<'_>, raw: &mut raw::OAuth2) -> Vec<Proof> {
        let mut proofs = Vec::new();
        let secrets = raw.client_secret.take().unwrap_or_default().0;
        let certificates = raw.certificate.take().unwrap_or_default().0;
        let kinds = [
            !secrets.is_empty(),
            !certificates.is_empty(),
            raw.assertion.is_some(),
        ];
        if kinds.into_iter().filter(|there| *there).count() > 1 {
            self.complain(
                place
                    .name(if kinds[1] { "certificate" } else { "assertion" })
                    .error("a client proves who it is in one way")
                    .hint("keep one of `client_secret`, `certificate`, `assertion`"),
            );
        }
        for (key, count) in [
            ("client_secret", secrets.len()),
            ("certificate", certificates.len()),
        ] {
            if count > 2 {
                self.complain(
                    place
                        .name(key)
                        .error("more than two are given")
                        .hint("two while it is being changed: the newer first"),
                );
            }
        }
        for (index, secret) in secrets.into_iter().enumerate() {
            let spot = place.key("client_secret").item(index);
            proofs.push(Proof::Secret(self.secret(
                &spot,
                &place.name("client_secret"),
                secret,
            )));
        }
        for (index, written) in certificates.into_iter().enumerate() {
            let spot = place.key("certificate").item(index);
            let cert = self.path(&written.cert);
            let key = match &written.key {
                Some(text) => {
                    let key = self.path(text);
                    self.seen(&spot.key("key"), &key);
                    key
                }
                None => cert.clone(),
            };
            self.certificate(&spot.key("cert"), &cert);
            proofs.push(Proof::Certificate(CertificateFiles { cert, key }));
        }
        if let Some(assertion) = raw.assertion.take() {
            proofs.push(Proof::Assertion(self.secret(
                &place.key("assertion"),
                &place.name("assertion"),
                assertion,
            )));
        }
        proofs
    }

    /// A certificate that is there must be one, and not have ended.
    fn certificate(&mut self, at: &At<'_>, path: &std::path::Path) {
        let Ok(bytes) = std::fs::read(path) else {
            self.seen(at, path);
            return;
        };
        match Certificate::read(&String::from_utf8_lossy(&bytes)) {
            Err(why) => self.complain(at.error(why).hint("a certificate and its key as PEM files")),
            Ok(certificate) if certificate.until() < Timestamp::now() => self.complain(
                at.warning(format!("this certificate ended on {}", certificate.until()))
                    .hint("make a new one and register it at the provider"),
            ),
            Ok(_) => {}
        }
    }
}

impl From<KeyOf> for Grant {
    fn from(key: KeyOf) -> Grant {
        Grant::JwtBearer(key)
    }
}

/// As it is written.
fn word(grant: raw::Grant) -> &'static str {
    match grant {
        raw::Grant::AuthorizationCode => "authorization_code",
        raw::Grant::DeviceCode => "device_code",
        raw::Grant::ClientCredentials => "client_credentials",
        raw::Grant::JwtBearer => "jwt_bearer",
        raw::Grant::ManagedIdentity => "managed_identity",
    }
}

/// Whether a key says anything with that grant.
fn means(grant: raw::Grant, key: &str) -> bool {
    match key {
        "redirect" | "listen" => grant == raw::Grant::AuthorizationCode,
        "service_account" | "signing_key" | "key_id" => grant == raw::Grant::JwtBearer,
        _ => grant != raw::Grant::ManagedIdentity,
    }
}

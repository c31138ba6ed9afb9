//! Who signs in, and how: OAuth2 or a password, the addresses tokens travel to, where secrets come from.

use crate::advice::Provider;
use crate::config::check::grant::Around;
use crate::config::check::{Checker, plain};
use crate::config::document::At;
use crate::config::preset::Known;
use crate::config::raw::{Secret as RawSecret, SecretFrom, settings as raw};
use crate::config::scopes::{self, Need};
use crate::config::secret::{Secret, SecretSource};
use crate::config::settings::{Credential, Grant, OAuth2, Proof};
use jiff::civil::Date;
use std::net::SocketAddr;
use std::path::PathBuf;
use url::Url;

/// The loopback redirect on a free port.
const REDIRECT: &str = "http://127.0.0.1:0/";

impl Checker<'_> {
    #[allow(clippy::too_many_arguments, reason = "the pieces of one account, called once")]
    pub(super) fn credential(
        &mut self,
        at: &At<'_>,
        raw: &mut raw::Account,
        endpoints: raw::Endpoints,
        known: Option<&Known>,
        provider: Provider,
        user: Option<&str>,
        damaged: bool,
        host: Option<&str>,
        need: Need,
    ) -> Credential {
        match (raw.oauth2.take(), raw.password.take()) {
            (Some(oauth2), password) => {
                if password.is_some() {
                    self.complain(
                        at.name("password")
                            .error("an account signs in with OAuth2 or with a password, not both")
                            .hint("remove the one you do not use"),
                    );
                }
                // The first mailbox stands for the others where nobody signs in.
                let first = raw
                    .senders
                    .as_ref()
                    .and_then(|senders| senders.0.first().cloned())
                    .filter(|_| need.unattended);
                let user = user.or(first.as_deref());
                if user.is_none() && !damaged {
                    let (error, hint) = if need.unattended {
                        (
                            "out of which mailbox?",
                            "add `user:` with its address, or `senders:` with several",
                        )
                    } else {
                        (
                            "who signs in?",
                            "add `user:` with the mail address of the account that gives consent",
                        )
                    };
                    self.complain(at.name("oauth2").error(error).hint(hint));
                }
                self.oauth2(at, oauth2, endpoints, known, provider, user, damaged, need)
            }
            (None, Some(password)) => {
                let place = at.key("password");
                let secret = self.secret(&place.key("secret"), &place.name("secret"), password.secret);
                let Some(user) = password.user.or_else(|| user.map(str::to_owned)) else {
                    if !damaged {
                        self.complain(
                            at.name("password")
                                .error("who signs in?")
                                .hint("add `user:` beside `secret:`"),
                        );
                    }
                    return Credential::None;
                };
                if known.is_some_and(|known| known.provider == Provider::Microsoft) {
                    self.complain(
                        at.name("password")
                            .warning("Microsoft 365 turns passwords for SMTP off by the end of December 2026")
                            .hint("sign in with `oauth2:`"),
                    );
                }
                Credential::Password { user, secret }
            }
            (None, None) => {
                if known.is_some_and(|known| Some(known.host) == host) && !damaged {
                    self.complain(
                        at.key("provider")
                            .error("this provider takes no mail from somebody who does not sign in")
                            .hint("add `oauth2: { tenant: .., client_id: .. }` and `user:`"),
                    );
                }
                Credential::None
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the pieces of one account, called once")]
    fn oauth2(
        &mut self,
        at: &At<'_>,
        mut raw: raw::OAuth2,
        endpoints: raw::Endpoints,
        known: Option<&Known>,
        provider: Provider,
        user: Option<&str>,
        damaged: bool,
        need: Need,
    ) -> Credential {
        let of = at.key("provider");
        let place = at.key("oauth2");
        let around = Around {
            provider: known.map(|known| known.provider),
            damaged,
        };
        let (grant, proofs) = self.grant(&place, &at.name("oauth2"), &mut raw, around);
        let client_id = raw.client_id.unwrap_or_default().trim().to_owned();
        let tenant = raw.tenant.filter(|tenant| {
            let fine = !tenant.is_empty()
                && tenant
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.'));
            if !fine {
                self.complain(
                    place
                        .key("tenant")
                        .error(format!("`{tenant}` is not a tenant"))
                        .hint("a domain like contoso.onmicrosoft.com, or the directory's id"),
                );
            }
            fine
        });
        let given = |url: &Option<String>| url.is_some();
        let needs_tenant = |url: &str| url.contains("{tenant}");
        if let Some(known) = known
            && tenant.is_none()
            && !place.has("tenant")
            && !damaged
            && ((needs_tenant(known.authorize_url) && !given(&endpoints.authorize_url))
                || (needs_tenant(known.token_url) && !given(&endpoints.token_url)))
            && endpoints.issuer.is_none()
            && !matches!(grant, Grant::ManagedIdentity)
        {
            self.complain(
                at.name("oauth2")
                    .error("which tenant?")
                    .hint("add `tenant:` with your directory's domain (contoso.onmicrosoft.com) or id"),
            );
        }
        let fill = |url: &str| url.replace("{tenant}", tenant.as_deref().unwrap_or("organizations"));
        let mut endpoint = |key: &str, written: Option<String>, preset: Option<&str>| -> Option<Url> {
            match written {
                Some(text) => self.endpoint(&of.key(key), &fill(&text)),
                None => preset.and_then(|url| Url::parse(&fill(url)).ok()),
            }
        };
        // With an issuer of one's own, the preset's endpoints belong to somebody else.
        let known = known.filter(|_| endpoints.issuer.is_none());
        let (authorize_written, token_written) = (
            given(&endpoints.authorize_url) || need.unattended || given(&endpoints.device_url),
            given(&endpoints.token_url) || matches!(grant, Grant::ManagedIdentity),
        );
        let issuer = endpoint("issuer", endpoints.issuer, None);
        let authorize_url = endpoint(
            "authorize_url",
            endpoints.authorize_url,
            known.map(|known| known.authorize_url),
        );
        let device_url = endpoint(
            "device_url",
            endpoints.device_url,
            known.map(|known| known.device_url),
        );
        let managed_identity_url = endpoint("managed_identity_url", endpoints.managed_identity_url, None);
        let token_url = endpoint(
            "token_url",
            endpoints.token_url,
            known.map(|known| known.token_url),
        );
        let revoke_url = endpoint(
            "revoke_url",
            endpoints.revoke_url,
            known.and_then(|known| known.revoke_url),
        );
        let incomplete = !(authorize_written && token_written);
        if incomplete && !of.has("issuer") && known.is_none() && !damaged {
            let missing = match (authorize_written, token_written) {
                (false, false) => "it is not said where people sign in",
                (false, true) => "`authorize_url` is missing",
                _ => "`token_url` is missing",
            };
            let spot = if at.has("provider") {
                at.name("provider")
            } else {
                at.name("oauth2")
            };
            self.complain(spot.error(missing).hint(
                "`provider: microsoft365`, `provider: google`, \
                 `provider: { issuer: https://.. }`, or a map with authorize_url and token_url",
            ));
        }
        let scopes = match endpoints.scopes {
            Some(scopes) => {
                let beyond = known
                    .map(|known| scopes::beyond(known, need, &scopes.0))
                    .unwrap_or_default();
                if !beyond.is_empty() {
                    self.complain(
                        of.key("scopes")
                            .warning(format!(
                                "more is asked for than sending needs: {}",
                                beyond.join(" ")
                            ))
                            .hint("leave `scopes` out: what is needed follows from the account"),
                    );
                }
                scopes.0
            }
            None => known.map(|known| scopes::wanted(known, need)).unwrap_or_default(),
        };
        if scopes.is_empty() && !damaged && (issuer.is_some() || authorize_url.is_some() || need.unattended) {
            self.complain(at.name("provider").warning("no scopes are asked for").hint(
                "most providers give nothing useful then; add `scopes:`, with offline_access where it exists",
            ));
        }
        let authorize_extra = match endpoints.authorize_extra {
            Some(extra) => extra.into_iter().collect(),
            None => known
                .map(|known| {
                    known
                        .authorize_extra
                        .iter()
                        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                        .collect()
                })
                .unwrap_or_default(),
        };
        let has_secret = proofs.iter().any(|proof| matches!(proof, Proof::Secret(_)));
        let secret_expires = raw.secret_expires.and_then(|text| {
            let spot = place.key("secret_expires");
            match text.parse::<Date>() {
                Ok(date) => {
                    if date < jiff::Zoned::now().date() {
                        self.complain(
                            spot.warning(format!("the client secret ended on {date}"))
                                .hint("make a new one at the provider, then change this date"),
                        );
                    }
                    if !has_secret && !damaged {
                        self.complain(
                            spot.error("there is no client secret that could end")
                                .hint("add `client_secret:`, or remove this line"),
                        );
                    }
                    Some(date)
                }
                Err(_) => {
                    self.complain(
                        spot.error(format!("`{text}` is not a date"))
                            .hint("year, month, day: 2027-05-01"),
                    );
                    None
                }
            }
        });
        let listen = raw
            .listen
            .and_then(|text| self.listen(&place.key("listen"), &text));
        let grant_life = raw
            .grant_life
            .map(|time| self.some_time(&place.key("grant_life"), Some(&time.0), std::time::Duration::ZERO));
        let redirect = match raw.redirect {
            Some(text) => self.redirect(&place.key("redirect"), &text, place.has("listen")),
            None => Url::parse(REDIRECT).ok(),
        };
        if place.has("listen") && redirect.as_ref().is_some_and(|url| url.scheme() == "http") {
            self.complain(
                place
                    .name("listen")
                    .error("nothing is passed on: `redirect` leads to this machine itself")
                    .hint("it belongs to `redirect: https://..`, which a proxy serves"),
            );
        }
        let ca_file = endpoints.ca_file.map(|text| self.file(&of.key("ca_file"), &text));
        let Some(redirect) = redirect else {
            return Credential::None;
        };
        Credential::OAuth2(Box::new(OAuth2 {
            provider,
            grant,
            device_url,
            managed_identity_url,
            roles: scopes::roles(provider, need)
                .iter()
                .map(|&role| role.to_owned())
                .collect(),
            authorize_url,
            token_url,
            revoke_url,
            issuer,
            scopes,
            authorize_extra,
            client_id,
            proofs,
            secret_expires,
            grant_life,
            redirect,
            listen,
            login_hint: user.map(str::to_owned),
            tenant,
            ca_file,
        }))
    }

    /// An address tokens travel to: `https`, or `http` to this machine.
    pub(super) fn endpoint(&mut self, at: &At<'_>, text: &str) -> Option<Url> {
        let Ok(url) = Url::parse(text) else {
            self.complain(
                at.error(format!("`{text}` is not a web address"))
                    .hint("https://login.example.com/.."),
            );
            return None;
        };
        let here = url.host_str().is_some_and(is_loopback);
        if url.scheme() != "https" && !(url.scheme() == "http" && here) {
            self.complain(
                at.error("this address is not protected")
                    .hint("tokens travel here: https only; http only to this machine"),
            );
            return None;
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            self.complain(
                at.error("this address holds a login name or a fragment")
                    .hint("only the address itself"),
            );
            return None;
        }
        Some(url)
    }

    /// Where a proxy passes the browser's answer to.
    fn listen(&mut self, at: &At<'_>, text: &str) -> Option<SocketAddr> {
        match text.parse::<SocketAddr>() {
            Ok(address) => {
                if !address.ip().is_loopback() {
                    self.complain(
                        at.warning("what the proxy passes on goes over the network unprotected")
                            .hint("127.0.0.1:8017 where the proxy runs on this machine"),
                    );
                }
                Some(address)
            }
            Err(_) => {
                self.complain(
                    at.error(format!("`{text}` is not an address to listen on"))
                        .hint("IP address and port: 127.0.0.1:8017"),
                );
                None
            }
        }
    }

    /// Where the browser comes back to: this machine, without encryption (RFC 8252 7.3), or with it a
    /// proxy that passes it on.
    fn redirect(&mut self, at: &At<'_>, text: &str, proxied: bool) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| {
            let here =
                url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
            (here || proxied && url.scheme() == "https")
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
        });
        if url.is_none() {
            self.complain(
                at.error(format!("`{text}` does not lead back to this machine"))
                    .hint("http://127.0.0.1, http://localhost:3017/ or http://[::1], as it is registered at the provider; or https with `listen:`, where a proxy passes it on"),
            );
        }
        url
    }

    /// A file that must be there for the service; a warning, for it may not be for who checks.
    pub(super) fn seen(&mut self, at: &At<'_>, path: &std::path::Path) {
        if let Err(error) = std::fs::metadata(path) {
            self.complain(
                at.warning(format!("cannot see {}: {}", path.display(), plain(&error)))
                    .hint("it must be there, and readable, for the user tidings runs as"),
            );
        }
    }

    /// Where a secret comes from. `key` is where to point without showing the secret itself.
    pub(super) fn secret(&mut self, at: &At<'_>, key: &At<'_>, raw: RawSecret) -> SecretSource {
        match raw {
            RawSecret::Literal(text) => {
                // The line is shown with stars in its place.
                let problem = key.warning("a secret is written in the open here").hint(
                    "write { env: NAME }, { file: PATH } or { command: [..] } instead, and change the secret: it may be in backups",
                );
                self.complain(problem);
                SecretSource::Literal(Secret::new(text))
            }
            RawSecret::From(SecretFrom::Env(name)) => {
                if name.is_empty() || name.contains(['=', '\0']) {
                    self.complain(
                        at.key("env")
                            .error(format!("`{name}` cannot be the name of an environment variable")),
                    );
                }
                SecretSource::Env(name)
            }
            RawSecret::From(SecretFrom::File(text)) => {
                let path = self.path(&text);
                self.seen(&at.key("file"), &path);
                SecretSource::File(path)
            }
            RawSecret::From(SecretFrom::Command(mut argv)) => {
                match argv.first_mut() {
                    None => self.complain(
                        at.name("command")
                            .error("no program is named")
                            .hint("program and arguments: [pass, show, mail/office]"),
                    ),
                    Some(program) if program.contains('/') => {
                        let path: PathBuf = self.path(program);
                        *program = path.to_string_lossy().into_owned();
                    }
                    Some(_) => {}
                }
                SecretSource::Command(argv)
            }
        }
    }
}

/// Whether a host is this machine: `localhost`, 127.0.0.0/8, `::1`.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

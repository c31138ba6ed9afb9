//! Accounts: presets filled in, everything that cannot work said.

use crate::advice::Provider;
use crate::config::check::Checker;
use crate::config::check::sign_in::is_loopback;
use crate::config::document::At;
use crate::config::preset::{self, Known};
use crate::config::raw::settings as raw;
use crate::config::scopes::{Need, Way};
use crate::config::settings::{Account, Credential, LoginAs, SmtpSettings, Tls, Transport};
use crate::mail::address::Address;
use std::path::Path;
use url::Host;

impl Checker<'_> {
    /// Understands one account. With `damaged`, nothing is said about what is missing: it may be
    /// there, misspelled. Also says whether all addresses it may send as are known.
    pub fn account(
        &mut self,
        at: &At<'_>,
        name: &str,
        mut raw: raw::Account,
        damaged: bool,
    ) -> (Account, bool) {
        let (mut endpoints, preset) = match raw.provider.take() {
            None => (raw::Endpoints::default(), None),
            Some(raw::Provider::Preset(preset)) => (raw::Endpoints::default(), Some(preset)),
            Some(raw::Provider::Own(own)) => {
                let preset = own.preset;
                (*own, preset)
            }
        };
        let cloud = raw.cloud.unwrap_or_default();
        if raw.cloud.is_some() && preset != Some(raw::Preset::Microsoft365) && !damaged {
            self.complain(
                at.key("cloud")
                    .error("only Microsoft has several clouds")
                    .hint("it belongs to `provider: microsoft365`"),
            );
        }
        let tenant = raw.oauth2.as_ref().and_then(|oauth2| oauth2.tenant.as_deref());
        let known = preset.map(|preset| preset::known(preset, cloud, tenant));
        let grant = raw.oauth2.as_ref().and_then(|oauth2| oauth2.grant);
        let unattended = !matches!(
            grant,
            None | Some(raw::Grant::AuthorizationCode | raw::Grant::DeviceCode)
        );
        let others = raw.senders.as_ref().is_some_and(|senders| !senders.0.is_empty());
        let has_provider = at.has("provider");
        let provider = known.map_or(Provider::Generic, |known| known.provider);
        let user = raw.user.take();
        let own = user.as_deref().filter(|user| user.contains('@'));
        let mut senders_known = !damaged;
        let own: Option<Address> = own.and_then(|text| {
            let address = self.address(&at.key("user"), text);
            senders_known &= address.is_some();
            address
        });
        let pace = self.pace(at, &raw, endpoints.pace, known);
        let transport = match raw.transport.unwrap_or(raw::Transport::Smtp) {
            raw::Transport::File => self.file_transport(at, name, &raw, has_provider),
            raw::Transport::Graph => {
                self.strange(at, &raw);
                {
                    let me = user.as_deref().filter(|_| !unattended);
                    self.graph_transport(at, &mut raw, &mut endpoints, known, me, damaged)
                }
            }
            raw::Transport::Gmail => {
                self.strange(at, &raw);
                self.gmail_transport(at, &mut raw, &mut endpoints, provider, damaged)
            }
            raw::Transport::Smtp => {
                self.strange(at, &raw);
                self.smtp_transport(at, name, &raw, endpoints.smtp.take(), known, unattended, damaged)
            }
        };
        let credential = match &transport {
            Transport::File { .. } => Credential::None,
            Transport::Smtp(_) | Transport::Graph(_) | Transport::Gmail(_) => {
                let (host, way) = match &transport {
                    Transport::Smtp(smtp) => (Some(smtp.host.as_str()), Way::Smtp),
                    Transport::Graph(_) => (None, Way::Graph),
                    _ => (None, Way::Gmail),
                };
                self.credential(
                    at,
                    &mut raw,
                    endpoints,
                    known,
                    provider,
                    user.as_deref(),
                    damaged,
                    host,
                    Need {
                        way,
                        unattended,
                        others,
                        drafts: matches!(&transport, Transport::Graph(graph) if graph.uploads),
                    },
                )
            }
        };
        let mut senders: Vec<Address> = own.iter().cloned().collect();
        for (index, text) in raw.senders.unwrap_or_default().0.iter().enumerate() {
            let spot = at.key("senders").item(index);
            let Some(address) = self.address(&spot, text) else {
                senders_known = false;
                continue;
            };
            if own.as_ref() == Some(&address) {
                continue;
            }
            if senders.contains(&address) {
                self.complain(
                    spot.warning(format!("{address} is listed twice"))
                        .hint("keep one of them"),
                );
                continue;
            }
            senders.push(address);
        }
        if let Some(signature) = &raw.signature
            && let Err(hint) = (self.template)(signature)
        {
            self.complain(
                at.key("signature")
                    .error(format!("there is no template `{signature}`"))
                    .hint(hint),
            );
        }
        let transcript = raw.transcript.as_deref().map(|text| {
            let path = self.path(text);
            self.folder_of(&at.key("transcript"), &path);
            path
        });
        let account = Account {
            name: name.to_owned(),
            description: raw.description,
            provider,
            user,
            transport,
            credential,
            any_sender: senders.is_empty(),
            senders,
            reply_to: raw
                .reply_to
                .and_then(|text| self.mailbox(&at.key("reply_to"), &text)),
            signature: raw.signature,
            pace,
            transcript,
        };
        (account, senders_known)
    }

    /// The folder a file of ours will be written to must be there.
    fn folder_of(&mut self, at: &At<'_>, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            self.complain(
                at.error(format!("there is no folder {}", folder.display()))
                    .hint(format!("mkdir -p {}", folder.display())),
            );
        }
    }

    fn file_transport(&mut self, at: &At<'_>, name: &str, raw: &raw::Account, provider: bool) -> Transport {
        let strange = [
            ("provider", provider),
            ("smtp", raw.smtp.is_some()),
            ("oauth2", raw.oauth2.is_some()),
            ("password", raw.password.is_some()),
        ];
        for (key, _) in strange.iter().filter(|(_, there)| *there) {
            self.complain(
                at.name(key)
                    .error(format!("`{key}` means nothing with `transport: file`"))
                    .hint("files are written, nothing is sent; remove the one or the other"),
            );
        }
        // A folder of its own makes sense without being asked for.
        let folder = raw.folder.as_deref().unwrap_or(name);
        Transport::File {
            folder: self.path(folder),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the pieces of one account, called once")]
    fn smtp_transport(
        &mut self,
        at: &At<'_>,
        name: &str,
        raw: &raw::Account,
        provided: Option<raw::Smtp>,
        known: Option<&Known>,
        unattended: bool,
        damaged: bool,
    ) -> Transport {
        let written = raw.smtp.clone().unwrap_or_default();
        let provided = provided.unwrap_or_default();
        // The account's own word goes before the provider's, key by key.
        let spot = |key: &str, own: bool| {
            if own {
                at.key("smtp").key(key)
            } else {
                at.key("provider").key("smtp").key(key)
            }
        };
        let tls_word = written.tls.or(provided.tls).map(|tls| match tls {
            raw::Tls::Starttls => Tls::Starttls,
            raw::Tls::Implicit => Tls::Implicit,
            raw::Tls::None => Tls::None,
        });
        let port_word = written.port.or(provided.port);
        let tls = tls_word
            .or_else(|| (port_word == Some(465)).then_some(Tls::Implicit))
            .or(known.map(|known| known.tls))
            .unwrap_or(Tls::Starttls);
        let port = port_word
            .or_else(|| known.filter(|known| known.tls == tls).map(|known| known.port))
            .unwrap_or(match tls {
                Tls::Starttls => 587,
                Tls::Implicit => 465,
                Tls::None => 25,
            });
        let own_host = written.host.is_some();
        let host = written.host.or(provided.host);
        let host = match host {
            Some(host) => {
                if Host::parse(&host).is_err() {
                    let hint = match host.split_once("://") {
                        Some((_, rest)) => format!("only the name: {}", rest.trim_end_matches('/')),
                        None if host.contains(':') => "the port goes to `port`".to_owned(),
                        None => "a name like smtp.example.com, or an IP address".to_owned(),
                    };
                    self.complain(
                        spot("host", own_host)
                            .error(format!("`{host}` is not the name of a server"))
                            .hint(hint),
                    );
                }
                host
            }
            None => match known {
                Some(known) => known.host.to_owned(),
                None => {
                    if !damaged {
                        self.complain(
                            at.error(format!("the account `{name}` does not say where its mail goes"))
                                .hint(
                                    "add `provider: microsoft365` or `provider: google`, \
                                     or `smtp: { host: mail.example.com }`, or `transport: file`",
                                ),
                        );
                    }
                    String::new()
                }
            },
        };
        let ca_own = written.ca_file.is_some();
        let ca_file = written
            .ca_file
            .or(provided.ca_file)
            .map(|text| self.file(&spot("ca_file", ca_own), &text));
        let login_as = match written.login_as.or(provided.login_as) {
            Some(raw::LoginAs::Sender) => LoginAs::Sender,
            Some(raw::LoginAs::User) => LoginAs::User,
            // An application has no mailbox of its own: it opens the sender's.
            None if unattended => LoginAs::Sender,
            None => known.map_or(LoginAs::User, |known| known.login_as),
        };
        if tls == Tls::None && Host::parse(&host).is_ok() {
            let place = spot("tls", at.key("smtp").has("tls"));
            if (raw.oauth2.is_some() || raw.password.is_some()) && !is_loopback(&host) {
                self.complain(
                    place
                        .error(format!("credentials would go to {host} for everybody to read"))
                        .hint("use `tls: starttls` (port 587) or `tls: implicit` (port 465)"),
                );
            } else if !is_loopback(&host) {
                self.complain(
                    place
                        .warning(format!("mails go to {host} unprotected"))
                        .hint("use `tls: starttls` if the server offers it"),
                );
            }
        }
        Transport::Smtp(SmtpSettings {
            host,
            port,
            tls,
            ca_file,
            login_as,
        })
    }
}

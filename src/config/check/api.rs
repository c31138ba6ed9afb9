//! Accounts that send over an HTTP interface: Microsoft Graph and the Gmail API.

use crate::advice::Provider;
use crate::config::check::Checker;
use crate::config::document::At;
use crate::config::preset::Known;
use crate::config::raw::settings as raw;
use crate::config::settings::{GmailSettings, GraphMailbox, GraphSettings, Pace, Transport};
use url::Url;

/// Where the Gmail API begins.
const GMAIL: &str = "https://gmail.googleapis.com/";
/// Requests at once that Graph takes of one application for one mailbox.
const GRAPH_AT_ONCE: u32 = 4;
/// Messages a minute: 15,000 units for each user, of which one costs 100.
const GMAIL_A_MINUTE: u32 = 150;

impl Checker<'_> {
    /// What stands there and belongs to another transport.
    pub(super) fn strange(&mut self, at: &At<'_>, raw: &raw::Account) {
        let transport = raw.transport.unwrap_or(raw::Transport::Smtp);
        if raw.folder.is_some() {
            self.complain(at.name("folder").error("a folder means nothing here").hint(
                "it belongs to `transport: file`, which writes mails to a folder instead of sending them",
            ));
        }
        if raw.graph.is_some() && transport != raw::Transport::Graph {
            self.complain(
                at.name("graph")
                    .error("`graph` means nothing here")
                    .hint("it belongs to `transport: graph`"),
            );
        }
        if raw.smtp.is_some() && transport != raw::Transport::Smtp {
            self.complain(
                at.name("smtp")
                    .error("this account does not send over SMTP")
                    .hint("remove `smtp:`, or the line `transport:`"),
            );
        }
    }

    pub(super) fn graph_transport(
        &mut self,
        at: &At<'_>,
        raw: &mut raw::Account,
        endpoints: &mut raw::Endpoints,
        known: Option<&Known>,
        user: Option<&str>,
        damaged: bool,
    ) -> Transport {
        let graph = raw.graph.unwrap_or_default();
        let uploads = graph.uploads.unwrap_or(true);
        let found = self.api(
            at,
            raw,
            (
                "graph",
                "graph_url",
                "microsoft365",
                known.map_or("", |known| known.api),
            ),
            endpoints.graph_url.take(),
            known.is_some_and(|known| known.provider == Provider::Microsoft),
            damaged,
        );
        let Some(url) = found else {
            return self.nowhere();
        };
        Transport::Graph(GraphSettings {
            url,
            mailbox: match graph.mailbox {
                Some(raw::GraphMailbox::Sender) => GraphMailbox::Sender,
                Some(raw::GraphMailbox::User) => GraphMailbox::User,
                // An application may send out of each mailbox, and as nobody else.
                None if user.is_none() => GraphMailbox::Sender,
                None => GraphMailbox::User,
            },
            uploads,
            me: user.map(str::to_owned),
            ca_file: endpoints.ca_file.as_deref().map(|text| self.path(text)),
        })
    }

    pub(super) fn gmail_transport(
        &mut self,
        at: &At<'_>,
        raw: &mut raw::Account,
        endpoints: &mut raw::Endpoints,
        provider: Provider,
        damaged: bool,
    ) -> Transport {
        let found = self.api(
            at,
            raw,
            ("gmail", "gmail_url", "google", GMAIL),
            endpoints.gmail_url.take(),
            provider == Provider::Google,
            damaged,
        );
        let Some(url) = found else {
            return self.nowhere();
        };
        Transport::Gmail(GmailSettings {
            url,
            ca_file: endpoints.ca_file.as_deref().map(|text| self.path(text)),
        })
    }

    /// Stands for an interface whose address was complained about; such settings are not used.
    fn nowhere(&self) -> Transport {
        Transport::File {
            folder: self.dir.to_owned(),
        }
    }

    /// Where an interface begins. Its name, its key, who has it, where it is usually.
    fn api(
        &mut self,
        at: &At<'_>,
        raw: &mut raw::Account,
        (name, key, preset, usual): (&str, &str, &str, &str),
        written: Option<String>,
        own: bool,
        damaged: bool,
    ) -> Option<Url> {
        if raw.password.take().is_some() {
            self.complain(
                at.name("password")
                    .error(format!("`transport: {name}` takes no password"))
                    .hint("sign in with `oauth2:`"),
            );
        } else if raw.oauth2.is_none() && !damaged {
            self.complain(
                at.key("transport")
                    .error(format!(
                        "`transport: {name}` takes no mail from somebody who does not sign in"
                    ))
                    .hint("add `oauth2: { client_id: .. }` and `user:`"),
            );
        }
        if let Some(text) = written {
            return self.endpoint(&at.key("provider").key(key), &text);
        }
        if !own && !damaged {
            self.complain(
                at.key("transport")
                    .error(format!("this account does not say where `{name}` is"))
                    .hint(format!(
                        "add `provider: {preset}`, or `{key}:` to a provider of your own; without either, use `transport: smtp`"
                    )),
            );
        }
        Url::parse(usual).ok()
    }

    /// How fast an account may send: its own word, its provider's, what is known.
    pub(super) fn pace(
        &mut self,
        at: &At<'_>,
        raw: &raw::Account,
        provided: Option<raw::Pace>,
        known: Option<&Known>,
    ) -> Pace {
        let transport = raw.transport.unwrap_or(raw::Transport::Smtp);
        let own = raw.pace.unwrap_or_default();
        let provided = provided.unwrap_or_default();
        let preset = known.map(|known| match transport {
            raw::Transport::Graph => Pace {
                connections: GRAPH_AT_ONCE,
                per_minute: None,
                ..known.pace
            },
            raw::Transport::Gmail => Pace {
                per_minute: Some(GMAIL_A_MINUTE),
                ..known.pace
            },
            raw::Transport::Smtp | raw::Transport::File => known.pace,
        });
        let mut pace = Pace {
            connections: own
                .connections
                .or(provided.connections)
                .or(preset.map(|pace| pace.connections))
                .unwrap_or(2),
            per_minute: own
                .per_minute
                .or(provided.per_minute)
                .or(preset.and_then(|pace| pace.per_minute)),
            per_day: own
                .per_day
                .or(provided.per_day)
                .or(preset.and_then(|pace| pace.per_day)),
        };
        if transport == raw::Transport::Graph && pace.connections > GRAPH_AT_ONCE {
            let spot = match own.connections {
                Some(_) => at.key("pace").key("connections"),
                None => at.key("provider").key("pace").key("connections"),
            };
            self.complain(
                spot.warning(format!(
                    "Graph takes {GRAPH_AT_ONCE} requests at once for one mailbox; no more are made"
                ))
                .hint(format!("connections: {GRAPH_AT_ONCE}")),
            );
            pace.connections = GRAPH_AT_ONCE;
        }
        pace
    }
}

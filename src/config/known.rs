//! What is known of an account, for advice: the values that stand in for the catalog's placeholders. Pure.

use crate::advice::values::Values;
use crate::config::settings::{Account, Credential, OAuth2, Proof, Transport};

/// Of a whole account. `mailbox`: whose name is given to the mail server; `from`: who the mail is from.
pub fn of_account(account: &Account, mailbox: &str, from: &str) -> Values {
    let mut values = match &account.credential {
        Credential::OAuth2(oauth2) => of_grant(&account.name, oauth2),
        Credential::Password { user, secret } => {
            let mut values = Values::default();
            values.set("login", user.as_str());
            values.set("secret", secret.to_string());
            values
        }
        Credential::None => Values::default(),
    };
    values.set("account", account.name.as_str());
    if let Some(user) = &account.user {
        login(&mut values, user);
    }
    values.set("mailbox", mailbox);
    values.set("from", from);
    match &account.transport {
        Transport::Smtp(smtp) => {
            values.set("host", smtp.host.as_str());
            values.set("port", smtp.port.to_string());
        }
        Transport::Graph(graph) => values.set("host", graph.url.host_str().unwrap_or_default()),
        Transport::Gmail(gmail) => values.set("host", gmail.url.host_str().unwrap_or_default()),
        Transport::File { .. } => {}
    }
    values
}

/// Of an account's grant alone.
pub fn of_grant(account: &str, oauth2: &OAuth2) -> Values {
    let mut values = Values::default();
    values.set("account", account);
    values.set("client id", oauth2.client_id.as_str());
    values.set("scope", oauth2.scopes.join(" "));
    if let Some(user) = &oauth2.login_hint {
        login(&mut values, user);
        values.set("mailbox", user.as_str());
        values.set("from", user.as_str());
    }
    if let Some(tenant) = &oauth2.tenant {
        values.set("tenant", tenant.as_str());
    }
    match oauth2.proofs.first() {
        Some(Proof::Secret(from) | Proof::Assertion(from)) => values.set("secret", from.to_string()),
        Some(Proof::Certificate(files)) => {
            values.set("secret", format!("the certificate {}", files.cert.display()));
        }
        None => {}
    }
    let mut redirect = oauth2.redirect.clone();
    if redirect.port() == Some(0) {
        // A free one: what is registered has none.
        let _ = redirect.set_port(None);
    }
    values.set("redirect", redirect.as_str());
    let sign_in = [&oauth2.authorize_url, &oauth2.token_url, &oauth2.issuer];
    if let Some(url) = sign_in.into_iter().flatten().next() {
        let origin = url.origin().ascii_serialization();
        values.set("portal", portal(&origin));
        values.set("sign-in host", origin);
    }
    values
}

fn login(values: &mut Values, user: &str) {
    values.set("login", user);
    if let Some((_, domain)) = user.rsplit_once('@') {
        values.set("login domain", domain);
    }
}

/// Where administrators work, by their cloud's sign-in server.
fn portal(sign_in: &str) -> &'static str {
    if sign_in.ends_with(".us") {
        "https://entra.microsoft.us"
    } else if sign_in.ends_with(".cn") {
        "https://entra.microsoft.cn"
    } else {
        "https://entra.microsoft.com"
    }
}

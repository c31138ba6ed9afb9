//! Who gets a mail: what rules write out, and what their templates give and the allow-list allows.

use crate::config::settings::Settings;
use crate::entry::Reason;
use crate::mail::address::Mailbox;
use crate::mail::header::{MAX_VALUE, one_line};
use crate::template::Text;
use serde_json::Value;

/// Who gets a mail.
#[derive(Clone, Debug)]
pub enum RecipientSpec {
    /// Written out in the rule, or a group's member: allowed by being written.
    Fixed(Mailbox),
    /// From a template: must meet the allow-list.
    Template(Text),
}

/// What texts of a rule are filled in with.
#[derive(Clone, Copy)]
pub(super) struct Saying<'a> {
    /// Groups and the allow-list.
    pub(super) settings: &'a Settings,
    /// Whose texts these are.
    pub(super) rule: &'a str,
    /// What may be said.
    pub(super) facts: &'a Value,
}

/// A text of the rule, filled in; or why the mail would be held.
pub(super) fn rendered(what: &str, text: &Text, with: &Saying<'_>) -> Result<String, Reason> {
    text.render(with.facts).map_err(|error| Reason {
        steps: vec![format!(
            "Mend `{what}` in the rule `{}`, then retry the mail.",
            with.rule
        )],
        ..Reason::new(format!(
            "`{what}: {}`: {error}",
            one_line(text.source(), MAX_VALUE)
        ))
    })
}

/// Everybody a list means. What a template made must be allowed; what is written out is.
/// Of several events, everybody that any of them gives, once.
pub(super) fn recipients(
    what: &str,
    specs: &[RecipientSpec],
    with: &Saying<'_>,
    members: Option<&[&Value]>,
) -> Result<Vec<Mailbox>, Reason> {
    let mut all = Vec::new();
    for spec in specs {
        match (spec, members) {
            (RecipientSpec::Fixed(mailbox), _) => all.push(mailbox.clone()),
            (RecipientSpec::Template(text), Some(members)) if !speaks_of_all(text) => {
                let mut values: Vec<String> = Vec::new();
                for facts in members {
                    let each = Saying { facts, ..*with };
                    let value = rendered(what, text, &each)?.trim().to_owned();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                for value in values {
                    for mailbox in templated(what, text, &value, with)? {
                        if !all.contains(&mailbox) {
                            all.push(mailbox);
                        }
                    }
                }
            }
            (RecipientSpec::Template(text), _) => {
                let value = rendered(what, text, with)?;
                all.extend(templated(what, text, value.trim(), with)?);
            }
        }
    }
    Ok(all)
}

/// Whether a text is about all events together, and not about each of them.
fn speaks_of_all(text: &Text) -> bool {
    let about = |root: &String| root == "group" || root == "throttle";
    text.variables()
        .iter()
        .any(|variable| variable.path.first().is_some_and(about))
}

/// What one rendered recipient means: a group of the settings, or one allowed address.
fn templated(what: &str, text: &Text, value: &str, with: &Saying<'_>) -> Result<Vec<Mailbox>, Reason> {
    let known = &with.settings.recipients;
    if let Some(group) = known.groups.get(value) {
        return Ok(group.clone());
    }
    let source = one_line(text.source(), MAX_VALUE);
    let refuse = |why: String, step: String| {
        Err(Reason {
            steps: vec![step, "Then retry the mail, or cancel it.".to_owned()],
            ..Reason::new(format!("`{what}: {source}` {why}"))
        })
    };
    if value.is_empty() {
        return refuse(
            "gave no address".to_owned(),
            format!(
                "See which fact is empty (`tidings events show`), and mend the rule `{}`.",
                with.rule
            ),
        );
    }
    let mailbox = match value.parse::<Mailbox>() {
        Ok(mailbox) if !value.contains([',', ';']) => mailbox,
        Ok(_) | Err(_) => {
            return refuse(
                format!(
                    "gave `{}`, which is not one mail address or a group",
                    one_line(value, 200)
                ),
                format!("Let it give one address; mend the rule `{}`.", with.rule),
            );
        }
    };
    let address = mailbox.address.to_string().to_lowercase();
    if let Some(why) = is_trick(&mailbox) {
        return refuse(
            format!("gave `{}`, {why}", one_line(value, 200)),
            format!("Let it give an ordinary address; mend the rule `{}`.", with.rule),
        );
    }
    let allowed = match &known.allow {
        Some(allow) => allow.is_match(&address),
        None => with
            .settings
            .written_out()
            .any(|written| *written == mailbox.address),
    };
    if allowed {
        return Ok(vec![mailbox]);
    }
    match known.allow {
        Some(_) => refuse(
            format!("gave {address}, which `recipients.allow` does not allow"),
            format!(
                "If it shall get mail, add it (or a pattern for it) to `recipients: allow:` in tidings.yaml: \"{address}\"."
            ),
        ),
        None => refuse(
            format!(
                "gave {address}, and without `recipients.allow` only addresses that tidings.yaml writes out are allowed"
            ),
            format!(
                "If it shall get mail, allow it in tidings.yaml: `recipients: {{ allow: [\"{address}\"] }}`."
            ),
        ),
    }
}

/// Why an address that a template made is not to be trusted, though it reads as one. Whoever names a file may be who
/// wrote it, and a pattern `*@ours.example` says nothing of what stands before the `@`.
pub fn is_trick(mailbox: &Mailbox) -> Option<&'static str> {
    let local = mailbox.address.local();
    if local.contains(['%', '!', '@', ':']) {
        // Postfix: `allow_percent_hack` and `swap_bangpath` are on by default.
        Some("and servers may take what is before its @ for a route to somebody else (`%`, `!`, `@` or `:`)")
    } else if local.starts_with('-') {
        Some("and programs may take an address that begins with - for an option")
    } else if local.contains("=?") {
        Some("and readers may decode what is before its @ (`=?`) to another address")
    } else {
        None
    }
}

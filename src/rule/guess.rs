//! What an emitted event might say, for a preview: nobody but its sender knows. Pure.

use crate::action::email::MailSpec;
use crate::action::recipients::RecipientSpec;
use crate::template::{Templates, Text};
use serde_json::{Map, Value};

/// Puts a word below `data` in the place of each fact that a mail says and the sample lacks.
pub fn fill(facts: &mut Value, mail: &MailSpec, templates: &Templates) {
    if facts.get("cloudevent").is_none() {
        return;
    }
    let fixed = mail.subject.iter().chain(&mail.attach);
    let recipients = [&mail.to, &mail.cc, &mail.bcc].into_iter().flatten();
    let texts: Vec<&Text> = fixed
        .chain(mail.headers.iter().map(|(_, text)| text))
        .chain(recipients.filter_map(|recipient| match recipient {
            RecipientSpec::Template(text) => Some(text),
            RecipientSpec::Fixed(_) => None,
        }))
        .collect();
    let said = texts.into_iter().flat_map(|text| text.variables());
    let said = said.map(|variable| (variable.path, variable.guarded));
    let template = templates.variables(&mail.template).into_iter();
    // What is asked for first may well be absent, as a list that is gone through.
    for (path, _) in said
        .chain(template.map(|found| (found.path, found.guarded)))
        .filter(|(path, guarded)| !guarded && path.first().is_some_and(|root| root == "data"))
    {
        put(facts, &path);
    }
}

fn put(facts: &mut Value, path: &[String]) {
    let Some((last, groups)) = path.split_last() else {
        return;
    };
    let mut at = facts;
    for part in groups {
        let Value::Object(map) = at else { return };
        at = map
            .entry(part.clone())
            .or_insert_with(|| Value::Object(Map::new()));
    }
    if let Value::Object(map) = at
        && !groups.is_empty()
    {
        map.entry(last.clone())
            .or_insert_with(|| Value::String(last.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_missing_is_put_there() {
        let mut facts = json!({ "data": { "own": 1, "text": "x" } });
        for path in [
            ["data", "own", "deep"],
            ["data", "text", "deep"],
            ["data", "new", "deep"],
        ] {
            put(&mut facts, &path.map(str::to_owned));
        }
        put(&mut facts, &["data".to_owned(), "own".to_owned()]);
        put(&mut facts, &["data".to_owned()]);
        assert_eq!(
            facts,
            json!({ "data": { "own": 1, "text": "x", "new": { "deep": "deep" } } })
        );
    }
}

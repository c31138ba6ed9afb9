use super::*;
use Provider::*;

fn reply(stage: Stage, text: &str) -> Symptom {
    let code: u16 = text[..3].parse().unwrap();
    let enhanced = text[4..]
        .split(' ')
        .next()
        .filter(|word| word.split('.').count() == 3);
    Symptom {
        stage: Some(stage),
        code: Some(code),
        enhanced: enhanced.map(str::to_owned),
        text: text.to_owned(),
        ..Symptom::default()
    }
}

#[test]
fn catalog_is_read_whole() {
    let items = read_catalog().unwrap();
    assert!(items.len() > 330, "{}", items.len());
    let mut ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), items.len(), "ids are unique");
    assert!(
        items
            .iter()
            .all(|item| !item.meaning.is_empty() && !item.advice.is_empty())
    );
}

/// Entries that another one with the same keys, or a symptom that can only be made this way, outranks.
const OUTRANKED: &[(&str, &str)] = &[
    // Raised beside a status 200 by a Graph transport, which would bring a `Local` of its own.
    ("graph-200-not-202", "unknown"),
];

#[test]
fn every_entry_of_the_catalog_is_reachable() {
    let mut wrong = Vec::new();
    for item in CATALOG.iter() {
        let texts = if item.keys.text_contains.is_empty() {
            vec![String::new()]
        } else {
            item.keys.text_contains.clone()
        };
        let found = texts.iter().map(|text| {
            let enhanced = item
                .keys
                .enhanced
                .as_ref()
                .map(|code| match code.split_once('-') {
                    Some((first, _)) => first.to_owned(),
                    None => code.clone(),
                });
            let symptom = Symptom {
                stage: Some(item.stage),
                code: item.keys.smtp_code,
                enhanced,
                http_status: item.keys.http_status,
                oauth_error: item.keys.oauth_error.clone(),
                oauth_suberror: item.keys.oauth_suberror.clone(),
                aadsts: item.keys.aadsts,
                graph_code: item.keys.graph_code.clone(),
                text: format!("they said: {text} and more"),
                retry_after: None,
                local: Local::ALL.into_iter().find(|local| local.fragment() == text),
            };
            advise(&symptom, item.provider).id
        });
        let found: Vec<_> = found.collect();
        let excused = |id: &&str| *id == item.id || OUTRANKED.contains(&(item.id.as_str(), *id));
        if !found.iter().all(|id| excused(&id)) {
            wrong.push((item.id.as_str(), found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_we_notice_ourselves_has_its_entry() {
    for local in Local::ALL {
        let symptom = Symptom {
            local: Some(local),
            ..Symptom::default()
        };
        let advice = advise(&symptom, Microsoft);
        assert!(
            advice.known && advice.id.starts_with("local-"),
            "{local:?}: {advice:?}"
        );
    }
}

#[test]
fn a_server_cannot_speak_in_our_name() {
    let symptom = reply(Stage::SmtpData, "550 local:tls-certificate");
    assert_ne!(advise(&symptom, Generic).id, "local-tls-certificate");
}

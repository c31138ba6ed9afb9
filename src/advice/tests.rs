use super::catalog::Catalog;
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
    let catalog = Catalog::shipped();
    let items = catalog.items();
    assert!(items.len() > 330, "{}", items.len());
    let mut ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), items.len(), "ids are unique");
    for item in items {
        let advice = item.advice(&Values::default());
        assert!(
            !advice.meaning.is_empty() && !advice.steps.is_empty(),
            "{}",
            item.id
        );
        assert_eq!(
            advice.who.is_none(),
            advice.class.is_transient()
                && item.id != "local-web-page"
                && item.id != "local-dns-failure"
                && item.id != "local-connect-refused"
                && item.id != "local-sign-in-unreached",
            "{}",
            item.id
        );
    }
}

/// Entries that another one with the same keys, or a symptom that can only be made this way, outranks.
const OUTRANKED: &[(&str, &str)] = &[
    // Raised beside a status 200 by a Graph transport, which would bring a `Local` of its own.
    ("graph-200-not-202", "unknown"),
];

#[test]
fn every_entry_of_the_catalog_is_reachable() {
    let mut wrong = Vec::new();
    for item in Catalog::shipped().items() {
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
        let excused = |id: &String| *id == item.id || OUTRANKED.contains(&(item.id.as_str(), id.as_str()));
        if !found.iter().all(excused) {
            wrong.push((item.id.clone(), found));
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

/// Replies as real servers sent them, and what they mean.
#[test]
fn replies_of_real_servers_are_understood() {
    use Class::*;
    use Stage::*;
    let cases = [
        (
            Microsoft,
            SmtpAuth,
            "535 5.7.3 Authentication unsuccessful [VI1PR0602CA0018.eurprd06.prod.outlook.com 2026-01-02T03:04:05.678Z 08DE]",
            "exo-auth-unsuccessful",
            FixPermission,
        ),
        (
            Microsoft,
            SmtpAuth,
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [FR2P281CA0080.DEUP281.PROD.OUTLOOK.COM]",
            "exo-smtp-auth-off-tenant",
            FixPermission,
        ),
        (
            Microsoft,
            SmtpAuth,
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.",
            "exo-smtp-auth-off-mailbox",
            FixPermission,
        ),
        (
            Microsoft,
            SmtpAuth,
            "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.",
            "exo-security-defaults",
            FixPermission,
        ),
        (
            Microsoft,
            SmtpAuth,
            "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon",
            "exo-token-expires-soon",
            Retry,
        ),
        (
            Microsoft,
            SmtpAuth,
            "504 5.7.4 Unrecognized authentication type [LO4P123CA0001.GBRP123.PROD.OUTLOOK.COM]",
            "exo-auth-type-unrecognized",
            FixConfig,
        ),
        (
            Microsoft,
            SmtpMail,
            "530 5.7.57 Client not authenticated to send mail. [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            "exo-client-not-authenticated",
            FixConfig,
        ),
        (
            Microsoft,
            SmtpMail,
            "451 5.7.3 STARTTLS is required to send mail [LO2P265CA0001.GBRP265.PROD.OUTLOOK.COM]",
            "exo-starttls-missing",
            FixConfig,
        ),
        (
            Microsoft,
            SmtpData,
            "430 4.2.0 STOREDRV; mailbox logon failure; failed to process message; Storage error: MapiExceptionLogonFailed: Unable to open message store.",
            "exo-mailbox-logon-failure",
            FixPermission,
        ),
        (
            Microsoft,
            SmtpData,
            "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded [Hostname=PR0P264MB0001.FRAP264.PROD.OUTLOOK.COM]",
            "exo-concurrent-threads",
            Throttle,
        ),
        (
            Microsoft,
            SmtpData,
            "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.",
            "exo-concurrent-connections",
            Throttle,
        ),
        (
            Microsoft,
            SmtpData,
            "554 5.2.252 SendAsDenied; alice@contoso.com not allowed to send as invoices@contoso.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message",
            "exo-sendas-denied",
            FixPermission,
        ),
        (
            Microsoft,
            SmtpData,
            "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception",
            "exo-sendas-denied-old",
            FixPermission,
        ),
        (
            Microsoft,
            SmtpData,
            "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message WASCL UserAction verdict is not None. Actual verdict is Suspend, ShowTierUpgrade.",
            "exo-outbound-spam",
            Throttle,
        ),
        (
            Microsoft,
            SmtpData,
            "552 5.3.4 Message size exceeds fixed maximum message size",
            "exo-message-too-big",
            RejectMessage,
        ),
        (
            Microsoft,
            Connect,
            "451 4.7.651 Access denied, please try again later",
            "exo-greylist",
            Retry,
        ),
        (
            Google,
            SmtpAuth,
            "535 5.7.8 Username and Password not accepted. For more information, go to / 5.7.8  https://support.google.com/mail/?p=BadCredentials",
            "gmail-bad-credentials",
            Reauthorize,
        ),
        (
            Google,
            SmtpData,
            "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail / 5.4.5 sending limits go to https://support.google.com/a/answer/166852",
            "gmail-daily-user-limit",
            Throttle,
        ),
        (
            Google,
            SmtpRcpt,
            "550 5.1.1 The email account that you tried to reach does not / 5.1.1 exist. Please try double-checking the recipient's email address",
            "gmail-user-unknown",
            RejectRecipient,
        ),
        (
            Google,
            SmtpAuth,
            "454 4.7.0 Too many login attempts, please try again later.",
            "gmail-too-many-logins",
            Throttle,
        ),
        (
            Generic,
            SmtpRcpt,
            "450 4.2.0 <a@b>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch",
            "smtp-greylisted",
            Retry,
        ),
        (
            Generic,
            SmtpRcpt,
            "552 too many recipients",
            "smtp-insufficient-storage",
            Retry,
        ),
        (
            Generic,
            SmtpAuth,
            "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6",
            "smtp-auth-invalid",
            Reauthorize,
        ),
    ];
    for (provider, stage, text, id, class) in cases {
        let advice = advise(&reply(stage, text), provider);
        assert_eq!((advice.id.as_str(), advice.class), (id, class), "{text}");
    }
}

#[test]
fn a_turned_away_connection_or_sign_in_never_fails_a_mail() {
    for stage in [Stage::Connect, Stage::Tls, Stage::SmtpAuth] {
        for provider in [Microsoft, Google, Generic] {
            for code in 400..600 {
                let symptom = reply(stage, &format!("{code} whatever"));
                let advice = advise(&symptom, provider);
                let action = disposition(&symptom, &advice, true);
                assert!(
                    matches!(
                        action,
                        Disposition::Retry | Disposition::Throttle | Disposition::Hold
                    ),
                    "{stage:?} {code}: {advice:?}"
                );
            }
        }
    }
}

#[test]
fn what_nobody_knows_is_said_honestly_and_classed_by_its_first_digit() {
    let class = |stage, text: &str| {
        let advice = advise(&reply(stage, text), Generic);
        assert!(!advice.known && advice.id == "unknown", "{advice:?}");
        advice.class
    };
    assert_eq!(class(Stage::SmtpData, "471 9 odd"), Class::Retry);
    assert_eq!(class(Stage::SmtpData, "571 9 odd"), Class::RejectMessage);
    assert_eq!(class(Stage::SmtpRcpt, "571 9 odd"), Class::RejectRecipient);
    assert_eq!(class(Stage::SmtpMail, "571 9 odd"), Class::FixConfig);
    let http = |status| Symptom {
        http_status: Some(status),
        ..Symptom::default()
    };
    assert_eq!(advise(&http(418), Generic).class, Class::FixConfig);
}

#[test]
fn an_aadsts_number_in_the_text_is_found() {
    let symptom = Symptom {
        stage: Some(Stage::Token),
        oauth_error: Some("invalid_client".into()),
        text: "AADSTS7000222: The provided client secret keys for app are expired.".into(),
        ..Symptom::default()
    };
    let number = Symptom {
        aadsts: Some(7_000_222),
        ..symptom.clone()
    };
    let advice = advise(&symptom, Microsoft);
    assert_eq!(advice, advise(&number, Microsoft));
    assert_eq!(advice.class, Class::FixConfig);
}

/// An account of which everything is known.
fn values() -> Values {
    let mut values = Values::default();
    for name in values::NAMES {
        values.set(name, format!("[{name}]"));
    }
    values
}

#[test]
fn every_placeholder_is_filled_but_what_only_the_reader_knows() {
    for item in Catalog::shipped().items() {
        let advice = item.advice(&values());
        for text in advice.steps.iter().chain([&advice.meaning]).chain(&advice.who) {
            let left = text
                .replace("<object id of the enterprise application>", "")
                .replace("<resource>/.default", "");
            assert!(!left.contains('<'), "{}: {text}", item.id);
        }
    }
}

#[test]
fn a_change_at_exchange_says_who_and_how_long() {
    let symptom = reply(
        Stage::SmtpData,
        "554 5.2.252 SendAsDenied; a not allowed to send as b",
    );
    let advice = advise_with(&symptom, Microsoft, &values());
    assert_eq!(
        advice.who.as_deref(),
        Some("an Exchange administrator of [tenant]")
    );
    assert!(advice.takes.as_ref().unwrap().contains("30 to 120 minutes"));
    assert!(advice.steps[0].contains("Add-RecipientPermission -Identity [from] -Trustee [login]"));
    let cure = advice.reason(&symptom).cure();
    assert!(
        cure.iter().any(|line| line.contains("30 to 120 minutes")),
        "{cure:?}"
    );
    assert_eq!(
        cure.last().unwrap(),
        "Who can do it: an Exchange administrator of [tenant]."
    );
}

#[test]
fn a_setups_own_entry_replaces_the_shipped_one_or_goes_before_all() {
    let own = "
- id: exo-sendas-denied
  provider: microsoft
  stage: smtp-data
  match: { smtp_code: 554, enhanced: 5.2.252, text_contains: [SendAsDenied] }
  meaning: Ours.
  class: fix-permission
  who: the service desk
  takes: a working day
  advice: ['Open a ticket for <from>.']
- id: ours
  provider: generic
  stage: smtp-data
  match: { text_contains: [X-HOUSE-7] }
  meaning: The house's own filter.
  class: reject-message
  advice: ['Ask the house.']
";
    let catalog = Catalog::with(own).unwrap();
    assert_eq!(catalog.items().len(), Catalog::shipped().items().len() + 1);
    let found = |stage, text| {
        catalog
            .find(&reply(stage, text), Microsoft)
            .unwrap()
            .advice(&values())
    };
    let advice = found(
        Stage::SmtpData,
        "554 5.2.252 SendAsDenied; a not allowed to send as b",
    );
    assert_eq!(
        (advice.meaning.as_str(), advice.steps[0].as_str()),
        ("Ours.", "Open a ticket for [from].")
    );
    assert_eq!(
        (advice.who.as_deref(), advice.takes.as_deref()),
        (Some("the service desk"), Some("a working day"))
    );
    assert_eq!(found(Stage::SmtpData, "571 5.7.1 X-House-7").id, "ours");
    for (wrong, says) in [
        ("- id: x", "missing"),
        (
            "- {id: x, provider: generic, stage: token, match: {}, meaning: ' ', class: retry, advice: [a]}",
            "meaning",
        ),
        ("nonsense", "sequence"),
    ] {
        let error = Catalog::with(wrong).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn an_unknown_reply_says_where_to_look() {
    let advice = advise(&reply(Stage::SmtpData, "571 9 odd"), Microsoft);
    assert!(
        !advice.known && advice.steps[1].contains("transcript"),
        "{advice:?}"
    );
    let token = Symptom {
        stage: Some(Stage::Token),
        oauth_error: Some("odd".into()),
        ..Symptom::default()
    };
    assert!(advise(&token, Microsoft).steps[1].contains("Sign-in logs"));
}

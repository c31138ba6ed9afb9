use super::*;
use crate::clock::Clock;

fn minimal() -> Value {
    json!({ "specversion": "1.0", "id": "1", "source": "/x", "type": "com.example.done" })
}

fn with(name: &str, value: Value) -> Result<CloudEvent, Refused> {
    let mut event = minimal();
    event[name] = value;
    CloudEvent::read(event.to_string().as_bytes())
}

fn now() -> Timestamp {
    "2026-03-02T08:30:00Z".parse().unwrap()
}

#[test]
fn a_whole_event_is_read_and_written_the_same() {
    let whole = json!({
        "specversion": "1.0", "id": "A234-1234-1234", "source": "//backup/nightly", "type": "com.example.backup.done",
        "subject": "db1", "time": "2026-03-02T07:00:00Z", "dataschema": "https://example.com/schema",
        "datacontenttype": "application/json", "comexampleextension1": "value", "comexampleothervalue": 5,
        "data": { "rows": 12, "list": [1, { "a": null }] },
    });
    let event = CloudEvent::read(whole.to_string().as_bytes()).unwrap();
    assert_eq!(event.written(), whole);
    let happening = event.happening(now());
    assert_eq!(happening.subject, "com.example.backup.done");
    assert_eq!(happening.time.to_string(), "2026-03-02T07:00:00Z");
    assert_eq!(happening.facts["cloudevent"]["data"]["rows"], 12);
    assert_eq!(
        happening.facts["cloudevent"]["extensions"]["comexampleothervalue"],
        5
    );
}

#[test]
fn only_four_attributes_are_needed_and_null_means_not_set() {
    let event = with("subject", Value::Null).unwrap();
    assert_eq!((event.subject, event.data), (None, Value::Null));
    assert_eq!(with("subject", Value::Null).unwrap().happening(now()).time, now());
    for name in ["specversion", "id", "source", "type"] {
        for gone in [None, Some(Value::Null)] {
            let mut event = minimal();
            match gone {
                None => drop(event.as_object_mut().unwrap().remove(name)),
                Some(null) => event[name] = null,
            }
            let error = CloudEvent::read(event.to_string().as_bytes()).unwrap_err();
            assert!(
                error.message.contains(&format!("`{name}` is missing")),
                "{}",
                error.message
            );
        }
    }
}

#[test]
fn data_in_base64_is_decoded() {
    let event = with("data_base64", json!("eyJyb3dzIjoxMn0=")).unwrap();
    assert_eq!(event.data, json!({ "rows": 12 }));
}

#[test]
fn what_the_specification_refuses_is_refused_with_the_place() {
    for (name, value, words) in [
        ("specversion", json!("0.3"), "only \"1.0\""),
        ("specversion", json!(1.0), "only \"1.0\""),
        ("id", json!(""), "`id` is empty"),
        ("id", json!(7), "`id` must be a text"),
        ("type", json!("a\u{7}b"), "control character"),
        ("type", json!("x".repeat(1001)), "longer than"),
        ("source", json!("two words"), "must be a URI"),
        ("time", json!("yesterday"), "must be a time"),
        ("time", json!("2026-03-02T08:30:00"), "must be a time"),
        ("datacontenttype", json!("text/xml"), "only JSON"),
        ("data_base64", json!("%%"), "not base64"),
        ("data_base64", json!("AAAA"), "no JSON"),
        ("My-Header", json!("x"), "small letters and digits"),
        ("rows", json!({"a": 1}), "belongs into `data`"),
        ("rows", json!(5_000_000_000_u64), "32 bits"),
        ("rows", json!(1.5), "whole number"),
    ] {
        let error = with(name, value).unwrap_err();
        assert!(error.message.contains(words), "{name}: {}", error.message);
        assert!(!error.unfinished);
    }
    let mut both = minimal();
    both["data"] = json!(1);
    both["data_base64"] = json!("MQ==");
    let error = CloudEvent::read(both.to_string().as_bytes()).unwrap_err();
    assert!(error.message.contains("only one"), "{}", error.message);
}

#[test]
fn hostile_bytes_are_refused_and_never_printed_raw() {
    let deep = "[".repeat(100_000);
    let cases: [&[u8]; 6] = [b"", b"{", b"[1]", b"\xff\xfe", deep.as_bytes(), b"\"text\""];
    for bytes in cases {
        assert!(CloudEvent::read(bytes).is_err());
    }
    assert!(CloudEvent::read(b"{\"id\"").unwrap_err().unfinished);
    assert!(
        CloudEvent::read(&vec![b' '; LARGEST + 1])
            .unwrap_err()
            .message
            .contains("larger")
    );
    let error = with("time", json!("\u{1b}[2J evil")).unwrap_err();
    assert!(!error.message.contains('\u{1b}'), "{:?}", error.message);
}

#[test]
fn source_and_id_are_the_key_and_cannot_be_mixed_up() {
    let key = |source: &str, id: &str| {
        let mut event = minimal();
        (event["source"], event["id"]) = (json!(source), json!(id));
        CloudEvent::read(event.to_string().as_bytes())
            .unwrap()
            .happening(now())
            .key
    };
    assert_eq!(key("a", "b"), key("a", "b"));
    assert_ne!(key("a", "b:c"), key("a:b", "c"));
    assert_ne!(key("a", "b"), key("b", "a"));
}

struct Drop {
    folder: tempfile::TempDir,
    store: Store,
}

impl Drop {
    async fn new() -> Drop {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state/tidings.db"), Clock::system())
            .await
            .unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        Drop { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("in").join(name)
    }

    async fn look(&self) -> Picked {
        pick_up(&self.path(""), true, &self.store, Timestamp::now())
            .await
            .unwrap()
    }

    async fn troubles(&self) -> Vec<String> {
        let cases = self.store.open_cases().await.unwrap();
        cases.into_iter().map(|case| case.reason.text).collect()
    }
}

fn old(path: &Path) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60))
        .unwrap();
}

#[tokio::test]
async fn a_dropped_event_is_recorded_once_and_its_file_removed() {
    let drop = Drop::new().await;
    for _ in 0..2 {
        std::fs::write(drop.path("a.json"), minimal().to_string()).unwrap();
        drop.look().await;
        assert!(!drop.path("a.json").exists());
    }
    assert_eq!(drop.store.pending_events(10).await.unwrap().len(), 1);
    assert!(drop.troubles().await.is_empty());
}

#[tokio::test]
async fn a_bad_file_is_set_aside_with_the_reason_and_told_until_somebody_cared() {
    let drop = Drop::new().await;
    std::fs::write(drop.path("bad.json"), "{\"id\": 1}").unwrap();
    std::fs::write(drop.path("good.json"), minimal().to_string()).unwrap();
    assert_eq!(
        drop.look().await,
        Picked {
            recorded: 1,
            refused: 1
        }
    );
    assert!(!drop.path("bad.json").exists());
    let why = std::fs::read_to_string(drop.path("refused/bad.json.txt")).unwrap();
    assert!(why.contains("`specversion` is missing"), "{why}");
    let troubles = drop.troubles().await;
    assert!(
        troubles.len() == 1 && troubles[0].contains("bad.json"),
        "{troubles:?}"
    );
    drop.look().await;
    assert_eq!(drop.troubles().await.len(), 1, "still there");
    // A second one of that name keeps the first.
    std::fs::write(drop.path("bad.json"), "[]").unwrap();
    drop.look().await;
    assert!(drop.path("refused/bad.json").exists() && drop.path("refused/2-bad.json").exists());
    for entry in std::fs::read_dir(drop.path("refused")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    drop.look().await;
    assert!(drop.troubles().await.is_empty());
}

#[tokio::test]
async fn half_a_file_is_waited_for_and_refused_when_its_writer_has_long_gone() {
    let drop = Drop::new().await;
    let text = minimal().to_string();
    std::fs::write(drop.path("a.json"), &text[..20]).unwrap();
    assert_eq!(drop.look().await, Picked::default());
    std::fs::write(drop.path("a.json"), &text).unwrap();
    assert_eq!(drop.look().await.recorded, 1);
    std::fs::write(drop.path("b.json"), &text[..20]).unwrap();
    old(&drop.path("b.json"));
    assert_eq!(drop.look().await.refused, 1);
}

#[tokio::test]
async fn links_pipes_and_hidden_files_lead_nowhere() {
    let drop = Drop::new().await;
    std::fs::write(drop.folder.path().join("secret"), minimal().to_string()).unwrap();
    std::os::unix::fs::symlink(drop.folder.path().join("secret"), drop.path("link.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        drop.path("pipe.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    std::fs::write(drop.path(".hidden.json"), minimal().to_string()).unwrap();
    std::fs::write(drop.path("large.json"), vec![b' '; LARGEST + 10]).unwrap();
    assert_eq!(
        drop.look().await,
        Picked {
            recorded: 0,
            refused: 3
        }
    );
    assert!(drop.path(".hidden.json").exists());
}

#[tokio::test]
async fn a_folder_that_is_away_is_a_trouble_until_it_is_back() {
    let drop = Drop::new().await;
    std::fs::remove_dir(drop.path("")).unwrap();
    drop.look().await;
    let troubles = drop.troubles().await;
    assert!(troubles[0].contains("cannot look into"), "{troubles:?}");
    std::fs::create_dir(drop.path("")).unwrap();
    drop.look().await;
    assert!(drop.troubles().await.is_empty());
}

#[tokio::test]
async fn what_is_left_as_a_file_is_what_was_said() {
    let drop = Drop::new().await;
    let event = with("data", json!({"a": [1, 2]})).unwrap();
    leave(&drop.path(""), &event).unwrap();
    assert_eq!(drop.look().await.recorded, 1);
    let recorded = drop.store.pending_events(10).await.unwrap();
    assert_eq!(recorded[0].happening.key, event.happening(now()).key);
    assert_eq!(
        recorded[0].happening.facts["cloudevent"]["data"],
        json!({"a": [1, 2]})
    );
}

use super::*;
use serde_json::json;

fn json(text: &str) -> serde_json::Value {
    let tree = read(text);
    assert_eq!(tree.faults, []);
    tree.root.unwrap().to_json()
}

fn messages(text: &str) -> Vec<String> {
    read(text).faults.into_iter().map(|fault| fault.message).collect()
}

#[test]
fn scalars_are_read_strictly() {
    assert_eq!(
        json("[true, yes, on, 12, 012, 1.5, ~, '7', null, -3, 1e3, 07:00, 10MB, .inf]"),
        json!([
            true, "yes", "on", 12, "012", 1.5, null, "7", null, -3, 1000.0, "07:00", "10MB", ".inf"
        ])
    );
}

#[test]
fn merge_keys_and_aliases_are_resolved_and_own_keys_win() {
    assert_eq!(
        json("base: &b {x: 1, y: 2}\nthing:\n  <<: *b\n  y: 3\nsame: *b\n"),
        json!({"base": {"x": 1, "y": 2}, "thing": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}})
    );
}

#[test]
fn places_are_byte_ranges_of_the_file() {
    let text = "ünï: {key: välue}\nlist:\n  - one\n  - two\n";
    let node = read(text).root.unwrap();
    let inner = node.get("ünï").unwrap().entry("key").unwrap();
    assert_eq!(&text[inner.key_place.clone()], "key");
    assert_eq!(&text[inner.value.place.clone()], "välue");
}

#[test]
fn all_duplicate_keys_are_found() {
    assert_eq!(
        messages("a: 1\nb: {x: 1, x: 2}\na: 3\n"),
        ["the key `x` is here twice", "the key `a` is here twice"]
    );
}

#[test]
fn an_alias_bomb_is_refused_before_it_grows() {
    let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..30 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            [below.as_str(); 9].join(", ")
        ));
    }
    let tree = read(&bomb);
    assert!(tree.root.is_none());
    assert!(tree.faults[0].message.contains("more than"), "{:?}", tree.faults);
}

#[test]
fn a_tower_of_aliases_is_refused_before_it_overflows_the_stack() {
    let mut tower = String::from("a0: &a0 []\n");
    for level in 1..2_000 {
        tower.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(messages(&tower)[0].contains("levels"), "{:?}", messages(&tower));
}

#[test]
fn one_big_text_cannot_be_multiplied() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), ["*a"; 1000].join(","));
    assert!(messages(&text)[0].contains("MB of text"));
}

#[test]
fn an_alias_to_nothing_and_to_itself_are_faults() {
    assert_eq!(
        messages("match: *.csv"),
        ["no anchor `&.csv` stands above this alias"]
    );
    assert_eq!(
        messages("a: &a [*a]"),
        ["this alias stands inside the very thing it names"]
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-c:\\-\\[\\]{}&*!|>'\"# \n\t,?<é]{0,80}") {
        let _ = read(&text);
    }
}

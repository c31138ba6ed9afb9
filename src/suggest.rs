//! "Did you mean": the known word that a typed one most likely stands for.

/// The nearest of `known` to `typed`, if it is near enough to be a slip.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + typed.chars().count() / 4;
    let folded = fold(typed);
    known
        .into_iter()
        .map(|word| (distance(&folded, &fold(word)), word))
        // A word of which nothing is left is no slip of the other.
        .filter(|(far, _)| *far <= limit && *far < folded.len().max(1))
        .min_by_key(|(far, _)| *far)
        .map(|(_, word)| word)
}

/// A hint about an unknown word: the nearest known one, or all of them.
pub fn hint<'a>(typed: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(typed, known.clone()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => {
            let words: Vec<String> = known
                .into_iter()
                .take(40)
                .map(|word| format!("`{word}`"))
                .collect();
            match words.len() {
                0 => String::new(),
                1 => format!("known is only {}", words[0]),
                _ => format!("known are {}", words.join(", ")),
            }
        }
    }
}

fn fold(word: &str) -> Vec<char> {
    // `client-id`, `clientId` and `client_id` differ by little for people.
    word.chars()
        .take(64)
        .filter(|character| !matches!(character, '-' | '_' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Edits between two words; two neighbours swapped count as one (Damerau's optimal alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["template", "timezone", "client_id", "to", "when"];
        for (typed, meant) in [
            ("templat", Some("template")),
            ("tempalte", Some("template")),
            ("clientId", Some("client_id")),
            ("timezome", Some("timezone")),
            ("wehn", Some("when")),
            ("throttle", None),
            ("x", None),
            ("recipients", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }

    proptest::proptest! {
        #[test]
        fn distance_is_zero_for_the_same_and_the_same_both_ways(a in ".{0,12}", b in ".{0,12}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            proptest::prop_assert_eq!(distance(&a, &a), 0);
            proptest::prop_assert_eq!(distance(&a, &b), distance(&b, &a));
        }
    }
}

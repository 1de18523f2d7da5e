//! Word and character error rates.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::tasks::edits;

/// A text as it is compared: in lower case, punctuation and symbols as spaces, single spaces between words.
///
/// ```
/// # use lowrank_burn::tasks::transcription::normalised;
/// assert_eq!(normalised(" Forty-Two,  così! "), "forty two così");
/// ```
#[must_use]
pub fn normalised(text: &str) -> String {
    static MARKS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\p{P}\p{S}]+").ok());
    let lower = text.to_lowercase();
    let plain = MARKS.as_ref().map_or(lower.as_str().into(), |marks| marks.replace_all(&lower, " "));
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Edits over the length of the references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorRate {
    /// Insertions, deletions and substitutions.
    pub errors: u64,
    /// Items of all references.
    pub items: u64,
}

impl ErrorRate {
    /// Counts one text.
    pub fn add<T: PartialEq>(&mut self, reference: &[T], found: &[T]) {
        self.errors += edits(reference, found).errors();
        self.items += reference.len() as u64;
    }

    /// The rate, which insertions may bring above 1; none without references.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn rate(&self) -> Option<f64> {
        (self.items > 0).then(|| self.errors as f64 / self.items as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, one case at a time.
    fn by_definition(from: &[u8], to: &[u8]) -> u64 {
        match (from.split_last(), to.split_last()) {
            (None, _) => to.len() as u64,
            (_, None) => from.len() as u64,
            (Some((one, from_rest)), Some((other, to_rest))) => {
                let substituted = by_definition(from_rest, to_rest) + u64::from(one != other);
                substituted.min(by_definition(from_rest, to) + 1).min(by_definition(from, to_rest) + 1)
            }
        }
    }

    proptest! {
        #[test]
        fn edits_are_the_fewest(
            from in proptest::collection::vec(0_u8..3, 0..7),
            to in proptest::collection::vec(0_u8..3, 0..7),
        ) {
            prop_assert_eq!(edits(&from, &to).errors(), by_definition(&from, &to));
        }
    }

    #[test]
    fn rates_are_over_all_references() {
        let mut rate = ErrorRate::default();
        assert_eq!(rate.rate(), None);
        rate.add(&["a", "b"], &["a"]);
        rate.add(&["c"], &["c", "d", "e"]);
        assert_eq!(rate.rate(), Some(1.0));
    }

    #[test]
    fn case_and_marks_do_not_count_but_accents_do() {
        assert_eq!(normalised("L'ora: 9.30 €"), "l ora 9 30");
        assert_ne!(normalised("é"), normalised("e"));
    }
}

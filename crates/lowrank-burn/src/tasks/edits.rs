//! How far what was recognised is from what was said.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// The fewest edits that make a hypothesis of a reference (Levenshtein, 1966), and the length of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EditCounts {
    /// One for another.
    pub substitutions: u64,
    /// In the hypothesis alone.
    pub insertions: u64,
    /// In the reference alone.
    pub deletions: u64,
    /// Words or characters of the reference.
    pub reference: u64,
}

impl EditCounts {
    /// All edits.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.substitutions + self.insertions + self.deletions
    }

    /// Edits over the length of the reference; none for an empty one. It may be above 1.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts of words are far below 2^53")]
        let rate = self.errors() as f64 / self.reference as f64;
        (self.reference > 0).then_some(rate)
    }
}

impl AddAssign for EditCounts {
    fn add_assign(&mut self, other: Self) {
        self.substitutions += other.substitutions;
        self.insertions += other.insertions;
        self.deletions += other.deletions;
        self.reference += other.reference;
    }
}

/// Edits of words, which are what white space separates: the word error rate (WER) is their [`EditCounts::rate`].
#[must_use]
pub fn word_errors(reference: &str, hypothesis: &str) -> EditCounts {
    let words = |text: &'_ str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    edits(&words(reference), &words(hypothesis))
}

/// Edits of characters, a space between words among them: the character error rate (CER) is their [`EditCounts::rate`].
#[must_use]
pub fn character_errors(reference: &str, hypothesis: &str) -> EditCounts {
    let characters = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect::<Vec<_>>();
    edits(&characters(reference), &characters(hypothesis))
}

/// Row by row of the table of distances; of equally few edits, substitutions are taken before deletions before insertions.
///
/// ```
/// # use lowrank_burn::tasks::edits;
/// assert_eq!(edits(b"venti", b"trenta").errors(), 3);
/// ```
#[must_use]
pub fn edits<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> EditCounts {
    let insertions = |count: usize| EditCounts { insertions: count as u64, ..EditCounts::default() };
    let mut row: Vec<EditCounts> = (0..=hypothesis.len()).map(insertions).collect();
    for (at, expected) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0].deletions = at as u64 + 1;
        for (place, found) in hypothesis.iter().enumerate() {
            let above = row[place + 1];
            let changed = u64::from(expected != found);
            let replaced = EditCounts { substitutions: diagonal.substitutions + changed, ..diagonal };
            let deleted = EditCounts { deletions: above.deletions + 1, ..above };
            let inserted = EditCounts { insertions: row[place].insertions + 1, ..row[place] };
            let best = [replaced, deleted, inserted].into_iter().min_by_key(EditCounts::errors);
            row[place + 1] = best.unwrap_or(replaced);
            diagonal = above;
        }
    }
    EditCounts { reference: reference.len() as u64, ..row[hypothesis.len()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(substitutions: u64, insertions: u64, deletions: u64, reference: u64) -> EditCounts {
        EditCounts { substitutions, insertions, deletions, reference }
    }

    #[test]
    fn edits_are_counted_by_kind() {
        assert_eq!(word_errors("the cat sat", "the  cat sat"), counts(0, 0, 0, 3));
        assert_eq!(word_errors("a b c d", "b c x d e"), counts(0, 2, 1, 4));
        assert_eq!(word_errors("one two three", "one six three"), counts(1, 0, 0, 3));
        assert_eq!(word_errors("", "uh"), counts(0, 1, 0, 0));
        assert_eq!(word_errors("", "uh").rate(), None);
        assert_eq!(character_errors("kitten", "sitting"), counts(2, 1, 0, 6));
        assert_eq!(character_errors("a b", "ab"), counts(0, 0, 1, 3));
        assert_eq!(word_errors("one", "two three").rate(), Some(2.0));
    }

    /// The distance alone, by its definition.
    fn distance(a: &[u8], b: &[u8]) -> u64 {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len() as u64,
            ([x, a @ ..], [y, b @ ..]) if x == y => distance(a, b),
            ([_, shorter_a @ ..], [_, shorter_b @ ..]) => {
                1 + distance(shorter_a, shorter_b).min(distance(shorter_a, b)).min(distance(a, shorter_b))
            }
        }
    }

    proptest! {
        #[test]
        fn no_fewer_edits_would_do(a in prop::collection::vec(0_u8..3, 0..7), b in prop::collection::vec(0_u8..3, 0..7)) {
            let counts = edits(&a, &b);
            prop_assert_eq!(counts.errors(), distance(&a, &b));
            prop_assert_eq!(counts.reference + counts.insertions, b.len() as u64 + counts.deletions);
        }
    }
}

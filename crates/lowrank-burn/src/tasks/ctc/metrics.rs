//! How well speech is recognised.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tasks::{Better, EditCounts, Score, character_errors, word_errors};

/// One pass over utterances. Displays as a table; as JSON it holds every number of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// How many utterances were heard.
    pub samples: u64,
    /// The mean loss.
    pub loss: Option<f64>,
    /// The word error rate: see [`word_errors`].
    pub wer: Option<f64>,
    /// The character error rate: see [`character_errors`].
    pub cer: Option<f64>,
    /// The share of utterances without an error.
    pub exact: Option<f64>,
    /// Edits of words.
    pub words: EditCounts,
    /// Edits of characters.
    pub characters: EditCounts,
}

impl Evaluation {
    /// The figures of what was said, what was recognised, and the loss, utterance by utterance.
    #[must_use]
    pub fn of<'a>(utterances: impl IntoIterator<Item = (&'a str, &'a str, f64)>) -> Self {
        let (mut evaluation, mut loss, mut exact) = (Self::default(), 0.0, 0_u64);
        for (said, recognised, own_loss) in utterances {
            evaluation.samples += 1;
            loss += own_loss;
            let words = word_errors(said, recognised);
            exact += u64::from(words.errors() == 0);
            evaluation.words += words;
            evaluation.characters += character_errors(said, recognised);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of utterances are far below 2^53")]
        let mean = |sum: f64| (evaluation.samples > 0).then(|| sum / evaluation.samples as f64);
        #[expect(clippy::cast_precision_loss, reason = "counts of utterances are far below 2^53")]
        let exact = exact as f64;
        Self {
            loss: mean(loss),
            exact: mean(exact),
            wer: evaluation.words.rate(),
            cer: evaluation.characters.rate(),
            ..evaluation
        }
    }

    /// The figures that are told first, the loss last.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        let rate = |name, title, value| Score { name, title, value, better: Better::Lower, share: true };
        vec![
            rate("wer", "WER", self.wer),
            rate("cer", "CER", self.cer),
            Score::share("exact", "exact", self.exact),
            Score::loss(self.loss),
        ]
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "            substituted  inserted  deleted        of   rate")?;
        for (name, counts, rate) in [("words", self.words, self.wer), ("characters", self.characters, self.cer)] {
            let EditCounts { substitutions, insertions, deletions, reference } = counts;
            let rate = rate.map_or("-".to_owned(), |rate| format!("{rate:.3}"));
            writeln!(f, "{name:<10}  {substitutions:>11}  {insertions:>8}  {deletions:>7}  {reference:>8}  {rate:>5}")?;
        }
        let value = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        write!(f, "utterances {}, exact {}, loss {}", self.samples, value(self.exact), value(self.loss))
    }
}

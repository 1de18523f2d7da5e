//! The figures of one pass over recordings with a text.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ErrorRate, normalised};
use crate::tasks::classification::{MeanLoss, figure};
use crate::tasks::{Better, Score};

/// Figures in the making.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    samples: u64,
    exact: u64,
    words: ErrorRate,
    characters: ErrorRate,
    /// By token.
    pub loss: MeanLoss,
}

impl Tally {
    /// Counts a text that was generated, and says whether it is that of the reference.
    pub fn add(&mut self, reference: &str, found: &str) -> bool {
        let (reference, found) = (normalised(reference), normalised(found));
        let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        self.words.add(&words(&reference), &words(&found));
        self.characters.add(&characters(&reference), &characters(&found));
        self.samples += 1;
        self.exact += u64::from(reference == found);
        reference == found
    }
}

/// One pass over recordings with a text. Displays as a table; as JSON it holds every number of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How many texts were compared.
    pub samples: u64,
    /// The mean cross-entropy by token, texts given, their ends included; none when no recording fits into a window.
    pub loss: Option<f64>,
    /// Errors by word: insertions, deletions and substitutions over the words of the references.
    pub wer: Option<f64>,
    /// Errors by character, spaces included.
    pub cer: Option<f64>,
    /// Share of the texts without an error.
    pub exact: Option<f64>,
    /// How many texts are without an error.
    pub exact_texts: u64,
    /// What `wer` is of.
    pub words: ErrorRate,
    /// What `cer` is of.
    pub characters: ErrorRate,
}

impl Evaluation {
    /// The figures of a tally.
    #[must_use]
    pub fn new(tally: &Tally) -> Self {
        Self {
            samples: tally.samples,
            loss: tally.loss.mean(),
            wer: tally.words.rate(),
            cer: tally.characters.rate(),
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            exact: (tally.samples > 0).then(|| tally.exact as f64 / tally.samples as f64),
            exact_texts: tally.exact,
            words: tally.words,
            characters: tally.characters,
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
        for (name, rate, unit) in [("WER", self.words, "words"), ("CER", self.characters, "characters")] {
            let ErrorRate { errors, items } = rate;
            writeln!(f, "{name:5}  {:>7}  {errors} errors in {items} {unit}", figure(rate.rate(), 4))?;
        }
        writeln!(f, "exact  {:>7}  {} of {} texts", figure(self.exact, 4), self.exact_texts, self.samples)?;
        write!(f, "loss   {:>7}", figure(self.loss, 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_over_all_texts() {
        let mut tally = Tally::default();
        assert!(tally.add("trenta tre", "Trenta tre."));
        assert!(!tally.add("due", "tue"));
        let evaluation = Evaluation::new(&tally);
        assert_eq!((evaluation.exact_texts, evaluation.exact), (1, Some(0.5)));
        assert_eq!(evaluation.wer, Some(1.0 / 3.0));
        assert_eq!(evaluation.cer, Some(1.0 / 13.0));
        assert_eq!(
            evaluation.to_string(),
            "WER     0.3333  1 errors in 3 words\nCER     0.0769  1 errors in 13 characters\n\
             exact   0.5000  1 of 2 texts\nloss         -"
        );
    }
}

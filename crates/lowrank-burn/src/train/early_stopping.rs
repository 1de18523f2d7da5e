//! Which evaluation was the best so far, and when to stop waiting for a better one.

use serde::{Deserialize, Serialize};

use crate::tasks::{Evaluation, Score};

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The optimiser step after which it was made.
    pub step: u64,
    /// The watched figure.
    pub value: f64,
}

/// What to do after an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The best so far: keep these parameters.
    Best,
    /// Not better; go on.
    Continue,
    /// Not better for as long as patience lasts: stop.
    Stop,
}

/// Follows the watched figure. Everything it knows is in these fields, so a checkpoint keeps it whole.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// How many evaluations in a row may fail to improve before training stops; none: it never stops early.
    pub patience: Option<u64>,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since the best one.
    pub since_best: u64,
}

impl EarlyStopping {
    /// With so many evaluations of patience.
    #[must_use]
    pub fn new(patience: Option<u64>) -> Self {
        Self { patience, best: None, since_best: 0 }
    }

    /// Takes the `evaluation` made after `step` into account, by the score its task is watched by
    /// ([`Evaluation::watched`]). A missing or non-finite figure is never better, and a tie goes to the earlier step.
    pub fn observe(&mut self, step: u64, evaluation: &Evaluation) -> Verdict {
        self.follow(step, evaluation.watched())
    }

    fn follow(&mut self, step: u64, score: Option<Score>) -> Verdict {
        let value = score.and_then(|score| Some((score, score.value.filter(|value| value.is_finite())?)));
        if let Some((score, value)) = value
            && self.best.is_none_or(|best| score.is_better(value, best.value))
        {
            self.best = Some(Best { step, value });
            self.since_best = 0;
            return Verdict::Best;
        }
        self.since_best += 1;
        match self.patience {
            Some(patience) if self.since_best >= patience => Verdict::Stop,
            _ => Verdict::Continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::classification::{self, ConfusionMatrix, MeanLoss};

    fn verdicts(patience: Option<u64>, losses: &[f64]) -> (Vec<Verdict>, EarlyStopping) {
        let mut stopping = EarlyStopping::new(patience);
        let scores = losses.iter().map(|loss| Some(Score::loss(Some(*loss))));
        let verdicts = (0..).zip(scores).map(|(step, score)| stopping.follow(step, score)).collect();
        (verdicts, stopping)
    }

    #[test]
    fn stops_when_patience_runs_out_and_remembers_the_best() {
        use Verdict::{Best as IsBest, Continue, Stop};
        let (found, stopping) = verdicts(Some(2), &[3.0, 2.0, 2.5, 1.0, 1.0, 1.5]);
        assert_eq!(found, [IsBest, IsBest, Continue, IsBest, Continue, Stop]);
        assert_eq!(stopping.best, Some(Best { step: 3, value: 1.0 }));
        let text = serde_json::to_string(&stopping).unwrap();
        assert_eq!(serde_json::from_str::<EarlyStopping>(&text).unwrap(), stopping);
    }

    #[test]
    fn without_patience_it_only_remembers() {
        assert!(verdicts(None, &[1.0, 2.0, 3.0, 4.0]).0.iter().all(|verdict| *verdict != Verdict::Stop));
    }

    #[test]
    fn what_is_not_a_number_is_never_the_best() {
        let (found, stopping) = verdicts(Some(2), &[f64::NAN, f64::INFINITY]);
        assert_eq!(found, [Verdict::Continue, Verdict::Stop]);
        assert_eq!(stopping.best, None);
    }

    #[test]
    fn a_classifier_is_watched_by_its_accuracy() {
        let mut stopping = EarlyStopping::new(None);
        let mut confusion = ConfusionMatrix::new(vec!["a".to_owned(), "b".to_owned()]);
        let evaluation = |confusion: &ConfusionMatrix| {
            Evaluation::Classification(classification::Evaluation::new(confusion.clone(), MeanLoss::default()))
        };
        confusion.add(0, 1).unwrap();
        let zero = evaluation(&confusion);
        confusion.add(1, 1).unwrap();
        let half = evaluation(&confusion);
        assert_eq!([stopping.observe(1, &zero), stopping.observe(2, &half)], [Verdict::Best, Verdict::Best]);
        assert_eq!(stopping.observe(3, &zero), Verdict::Continue);
    }
}

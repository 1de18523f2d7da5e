//! Which evaluation was the best so far, and when to stop waiting for a better one.

use serde::{Deserialize, Serialize};

use super::metrics::Evaluation;

/// The figure that decides which parameters are the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The mean loss; lower is better.
    #[default]
    Loss,
    /// The share of right predictions; higher is better.
    Accuracy,
    /// The mean F1 of the classes; higher is better.
    MacroF1,
}

impl Monitor {
    /// The figure of `evaluation`, if it has it.
    #[must_use]
    pub fn value(self, evaluation: &Evaluation) -> Option<f64> {
        match self {
            Self::Loss => evaluation.loss,
            Self::Accuracy => evaluation.accuracy,
            Self::MacroF1 => evaluation.macro_f1,
        }
    }

    fn is_better(self, value: f64, best: f64) -> bool {
        match self {
            Self::Loss => value < best,
            Self::Accuracy | Self::MacroF1 => value > best,
        }
    }
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The optimiser step after which it was made.
    pub step: u64,
    /// The monitored figure.
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

/// Follows the monitored figure. Everything it knows is in these fields, so a checkpoint keeps it whole.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// The figure that counts.
    pub monitor: Monitor,
    /// How many evaluations in a row may fail to improve before training stops; none: it never stops early.
    pub patience: Option<u64>,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since the best one.
    pub since_best: u64,
}

impl EarlyStopping {
    /// Watches `monitor`, with so many evaluations of `patience`.
    #[must_use]
    pub fn new(monitor: Monitor, patience: Option<u64>) -> Self {
        Self { monitor, patience, best: None, since_best: 0 }
    }

    /// Takes the `evaluation` made after `step` into account. A missing or non-finite figure is never better, and a tie
    /// goes to the earlier step.
    pub fn observe(&mut self, step: u64, evaluation: &Evaluation) -> Verdict {
        let value = self.monitor.value(evaluation).filter(|value| value.is_finite());
        if let Some(value) = value
            && self.best.is_none_or(|best| self.monitor.is_better(value, best.value))
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
    use super::super::metrics::{ConfusionMatrix, MeanLoss};
    use super::*;

    fn evaluation(loss: f64) -> Evaluation {
        let mut mean = MeanLoss::default();
        mean.add(loss, 1);
        Evaluation::new(ConfusionMatrix::new(vec![]), mean)
    }

    fn verdicts(patience: Option<u64>, losses: &[f64]) -> (Vec<Verdict>, EarlyStopping) {
        let mut stopping = EarlyStopping::new(Monitor::Loss, patience);
        let verdicts = (0..).zip(losses).map(|(step, loss)| stopping.observe(step, &evaluation(*loss))).collect();
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
    fn accuracy_is_better_when_it_is_higher() {
        let mut stopping = EarlyStopping::new(Monitor::Accuracy, None);
        let mut confusion = ConfusionMatrix::new(vec!["a".to_owned(), "b".to_owned()]);
        confusion.add(0, 1).unwrap();
        let zero = Evaluation::new(confusion.clone(), MeanLoss::default());
        confusion.add(1, 1).unwrap();
        let half = Evaluation::new(confusion, MeanLoss::default());
        assert_eq!([stopping.observe(1, &zero), stopping.observe(2, &half)], [Verdict::Best, Verdict::Best]);
        assert_eq!(stopping.observe(3, &zero), Verdict::Continue);
        assert_eq!(serde_json::to_string(&Monitor::MacroF1).unwrap(), r#""macro_f1""#);
    }
}

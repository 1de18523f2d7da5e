//! How well a classifier does: confusion matrix, accuracy, F1, mean loss; as numbers, JSON and an aligned table.

use std::fmt;

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

use crate::tasks::Score;

/// How often samples of each class were taken for each class: rows are the truth, columns the prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ConfusionMatrix {
    labels: Vec<String>,
    counts: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct Unchecked {
    labels: Vec<String>,
    counts: Vec<Vec<u64>>,
}

impl TryFrom<Unchecked> for ConfusionMatrix {
    type Error = Error;

    fn try_from(Unchecked { labels, counts }: Unchecked) -> Result<Self> {
        let classes = labels.len();
        if counts.len() != classes || counts.iter().any(|row| row.len() != classes) {
            return Err(Error::new(Subject::Data, "the confusion matrix is not square")
                .expected(format!("{classes} rows of {classes} counts")));
        }
        Ok(Self { labels, counts })
    }
}

impl ConfusionMatrix {
    /// An empty matrix over `labels`.
    #[must_use]
    pub fn new(labels: Vec<String>) -> Self {
        let counts = vec![vec![0; labels.len()]; labels.len()];
        Self { labels, counts }
    }

    /// Counts one sample of class `truth` that was taken for `predicted`.
    ///
    /// # Errors
    /// `Subject::Data` when one of them is not the number of a label.
    pub fn add(&mut self, truth: usize, predicted: usize) -> Result<()> {
        let cell = self.counts.get_mut(truth).and_then(|row| row.get_mut(predicted));
        let Some(cell) = cell else {
            return Err(Error::new(Subject::Data, "no such class")
                .found(format!("class {} in a set of {}", truth.max(predicted), self.labels.len()))
                .with_hint("the labels of the data and the outputs of the model have to be as many"));
        };
        *cell += 1;
        Ok(())
    }

    /// The names of the classes.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The counts: one row a true class, one column a predicted one.
    #[must_use]
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// How many samples were counted.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Right predictions over samples; none without samples.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.counts.iter().enumerate().map(|(class, row)| row[class]).sum(), self.samples())
    }

    /// Precision, recall and F1 of every class.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassMetrics> {
        self.labels
            .iter()
            .enumerate()
            .map(|(class, label)| {
                let hits = self.counts[class][class];
                let support = self.counts[class].iter().sum();
                let predicted = self.counts.iter().map(|row| row[class]).sum();
                ClassMetrics {
                    label: label.clone(),
                    precision: ratio(hits, predicted),
                    recall: ratio(hits, support),
                    f1: ratio(2 * hits, predicted + support),
                    support,
                }
            })
            .collect()
    }

    /// The mean F1 of the classes that occur, in truth or as a prediction (as scikit-learn's `f1_score` averages when it
    /// is not told the labels); none without samples.
    #[must_use]
    pub fn macro_f1(&self) -> Option<f64> {
        let f1: Vec<f64> = self.classes().iter().filter_map(|class| class.f1).collect();
        (!f1.is_empty()).then(|| f1.iter().sum::<f64>() / real(f1.len() as u64))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| real(part) / real(whole))
}

/// How well one class is recognised. What would be a division by zero is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// The name of the class.
    pub label: String,
    /// Right predictions of the class over all predictions of it; none when it was never predicted.
    pub precision: Option<f64>,
    /// Right predictions of the class over its samples; none when it has no samples.
    pub recall: Option<f64>,
    /// The harmonic mean of both, `2 TP / (2 TP + FP + FN)`; none when the class does not occur at all.
    pub f1: Option<f64>,
    /// How many samples the class has.
    pub support: u64,
}

/// A mean loss in the making.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MeanLoss {
    sum: f64,
    samples: u64,
}

impl MeanLoss {
    /// Counts a batch of `samples` samples whose mean loss is `loss`, so that the last, smaller batch weighs less.
    pub fn add(&mut self, loss: f64, samples: u64) {
        if samples > 0 {
            self.sum += loss * real(samples);
            self.samples += samples;
        }
    }

    /// The mean over all samples; none without samples.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.sum / real(self.samples))
    }
}

/// One pass over windows that have a class. Displays as a table; as JSON it holds every number of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How many samples were seen.
    pub samples: u64,
    /// The mean loss.
    pub loss: Option<f64>,
    /// See [`ConfusionMatrix::accuracy`].
    pub accuracy: Option<f64>,
    /// See [`ConfusionMatrix::macro_f1`].
    pub macro_f1: Option<f64>,
    /// Precision, recall and F1 of every class.
    pub classes: Vec<ClassMetrics>,
    /// What was taken for what.
    pub confusion: ConfusionMatrix,
}

impl Evaluation {
    /// The figures of `confusion` and `loss`.
    #[must_use]
    pub fn new(confusion: ConfusionMatrix, loss: MeanLoss) -> Self {
        Self {
            samples: confusion.samples().max(loss.samples),
            loss: loss.mean(),
            accuracy: confusion.accuracy(),
            macro_f1: confusion.macro_f1(),
            classes: confusion.classes(),
            confusion,
        }
    }

    /// The figures that are told first, the loss last.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        vec![
            Score::share("accuracy", "accuracy", self.accuracy),
            Score::share("macro_f1", "macro F1", self.macro_f1),
            Score::loss(self.loss),
        ]
    }
}

/// `value` with so many decimals, or a dash for what has none.
pub(crate) fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.classes.iter().map(|class| class.label.chars().count());
        let width = labels.chain(["macro F1".len()]).max().unwrap_or_default();
        if !self.classes.is_empty() {
            writeln!(f, "{:width$}  precision  recall     F1  samples", "")?;
        }
        for class in &self.classes {
            let (precision, recall, f1) = (figure(class.precision, 3), figure(class.recall, 3), figure(class.f1, 3));
            writeln!(f, "{:width$}  {precision:>9}  {recall:>6}  {f1:>5}  {:>7}", class.label, class.support)?;
        }
        for (name, value) in [("accuracy", self.accuracy), ("macro F1", self.macro_f1)] {
            if !self.classes.is_empty() {
                writeln!(f, "{name:width$}  {:>24}  {:>7}", figure(value, 3), self.samples)?;
            }
        }
        write!(f, "{:width$}  {:>24}  {:>7}", "loss", figure(self.loss, 4), self.samples)
    }
}

impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = "truth \\ predicted";
        let width = |text: &str| text.chars().count();
        let first = self.labels.iter().map(|label| width(label)).chain([width(header)]).max().unwrap_or_default();
        let columns: Vec<usize> = (self.labels.iter().enumerate())
            .map(|(class, label)| {
                let counts = self.counts.iter().map(|row| row[class].to_string().len());
                counts.chain([width(label)]).max().unwrap_or_default()
            })
            .collect();
        write!(f, "{header:first$}")?;
        for (label, column) in self.labels.iter().zip(&columns) {
            write!(f, "  {label:>column$}")?;
        }
        for (label, row) in self.labels.iter().zip(&self.counts) {
            write!(f, "\n{label:first$}")?;
            for (count, column) in row.iter().zip(&columns) {
                write!(f, "  {count:>column$}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(pairs: &[(usize, usize)]) -> ConfusionMatrix {
        let mut matrix = ConfusionMatrix::new(["cat", "dog", "blackbird", "owl"].map(str::to_owned).to_vec());
        for (truth, predicted) in pairs {
            matrix.add(*truth, *predicted).unwrap();
        }
        matrix
    }

    #[test]
    fn figures_are_the_textbooks() {
        // cat: 2 right of 3, one taken for dog; dog: 1 of 1; blackbird predicted once, never true; owl absent.
        let matrix = matrix(&[(0, 0), (0, 0), (0, 1), (1, 1), (1, 2)]);
        assert_eq!(matrix.accuracy(), Some(0.6));
        let classes = matrix.classes();
        assert_eq!((classes[0].precision, classes[0].recall, classes[0].f1), (Some(1.0), Some(2.0 / 3.0), Some(0.8)));
        assert_eq!((classes[1].precision, classes[1].recall, classes[1].f1), (Some(0.5), Some(0.5), Some(0.5)));
        assert_eq!((classes[2].precision, classes[2].recall, classes[2].f1), (Some(0.0), None, Some(0.0)));
        assert_eq!((classes[3].precision, classes[3].recall, classes[3].f1), (None, None, None));
        // The mean over the three classes that occur.
        assert!((matrix.macro_f1().unwrap() - 1.3 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn nothing_seen_is_nothing_claimed() {
        let evaluation = Evaluation::new(matrix(&[]), MeanLoss::default());
        assert_eq!((evaluation.loss, evaluation.accuracy, evaluation.macro_f1), (None, None, None));
        assert_eq!(evaluation.samples, 0);
        assert_eq!(
            evaluation.to_string().lines().last().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["loss", "-", "0"]
        );
        let without_classes = Evaluation::new(ConfusionMatrix::new(vec![]), MeanLoss::default());
        assert_eq!(without_classes.to_string().lines().count(), 1);
    }

    #[test]
    fn a_class_that_does_not_exist_is_an_error() {
        let error = matrix(&[]).add(0, 4).unwrap_err();
        assert_eq!(error.to_string(), "no such class: found class 4 in a set of 4");
    }

    #[test]
    fn a_short_last_batch_weighs_less() {
        let mut loss = MeanLoss::default();
        loss.add(1.0, 3);
        loss.add(5.0, 1);
        loss.add(f64::NAN, 0);
        assert_eq!(loss.mean(), Some(2.0));
    }

    #[test]
    fn tables_are_aligned() {
        let mut loss = MeanLoss::default();
        loss.add(0.25, 5);
        let evaluation = Evaluation::new(matrix(&[(0, 0), (0, 0), (0, 1), (1, 1), (1, 2)]), loss);
        let expected = [
            "           precision  recall     F1  samples",
            "cat            1.000   0.667  0.800        3",
            "dog            0.500   0.500  0.500        2",
            "blackbird      0.000       -  0.000        0",
            "owl                -       -      -        0",
            "accuracy                      0.600        5",
            "macro F1                      0.433        5",
            "loss                         0.2500        5",
        ];
        assert_eq!(evaluation.to_string().lines().collect::<Vec<_>>(), expected);
        let expected = "\
truth \\ predicted  cat  dog  blackbird  owl
cat                  2    1          0    0
dog                  0    1          1    0
blackbird            0    0          0    0
owl                  0    0          0    0";
        assert_eq!(evaluation.confusion.to_string(), expected);
    }

    #[test]
    fn json_holds_every_figure_and_comes_back() {
        let mut loss = MeanLoss::default();
        loss.add(0.5, 2);
        let evaluation = Evaluation::new(matrix(&[(0, 0), (1, 0)]), loss);
        let json = serde_json::to_value(&evaluation).unwrap();
        assert_eq!(json["classes"][0]["precision"], 0.5);
        assert_eq!(json["classes"][3]["recall"], serde_json::Value::Null);
        assert_eq!(json["confusion"]["counts"][1], serde_json::json!([1, 0, 0, 0]));
        assert_eq!(serde_json::from_value::<Evaluation>(json).unwrap(), evaluation);
        let crooked = r#"{"labels": ["a", "b"], "counts": [[1, 2], [3]]}"#;
        assert!(serde_json::from_str::<ConfusionMatrix>(crooked).unwrap_err().to_string().contains("not square"));
    }

    proptest! {
        #[test]
        fn figures_stay_in_range(pairs in prop::collection::vec((0..4usize, 0..4usize), 0..50)) {
            let matrix = matrix(&pairs);
            prop_assert_eq!(matrix.samples(), pairs.len() as u64);
            let right = pairs.iter().filter(|(truth, predicted)| truth == predicted).count();
            prop_assert_eq!(matrix.accuracy(), ratio(right as u64, pairs.len() as u64));
            for class in matrix.classes() {
                for value in [class.precision, class.recall, class.f1].into_iter().flatten() {
                    prop_assert!((0.0..=1.0).contains(&value));
                }
                // F1 lies between precision and recall.
                if let (Some(p), Some(r), Some(f1)) = (class.precision, class.recall, class.f1) {
                    prop_assert!(f1 >= p.min(r) - 1e-12 && f1 <= p.max(r) + 1e-12);
                }
            }
        }
    }
}

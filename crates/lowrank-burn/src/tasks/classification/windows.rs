//! The windows of a split as examples: what a network says about them, and how far that is from their labels.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::{Error, Result, Subject};
use serde::Serialize;

use super::Classifier;
use super::metrics::{ConfusionMatrix, Evaluation, MeanLoss};
use crate::data::{Dataset, Manifest, Normalisation, SignalFormat, Split};
use crate::models::Network;
use crate::tasks::{self, Examples, Predictions};
use crate::train::TrainConfig;
use crate::values;

/// The windows of a split, normalised as a base model has it.
#[derive(Debug, Clone)]
pub struct Windows {
    dataset: Dataset,
    normalisation: Normalisation,
    label_smoothing: f32,
}

/// What a network says about one window.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    path: String,
    /// In seconds.
    start: f64,
    /// In seconds.
    end: f64,
    /// What the manifest says it is; none without a manifest.
    label: Option<&'a str>,
    /// What the network says it is.
    predicted: &'a str,
    /// One number a class, before softmax.
    logits: &'a [f32],
}

impl Windows {
    /// The windows of a split for a classifier.
    ///
    /// # Errors
    /// See [`Dataset::load`].
    pub fn load(manifest: &Manifest, split: Split, classifier: &Classifier, config: &TrainConfig) -> Result<Self> {
        let dataset = Dataset::load(manifest, split, &classifier.signal)?;
        let normalisation = classifier.normalization.clone();
        Ok(Self { dataset, normalisation, label_smoothing: config.label_smoothing })
    }

    /// The training windows of a new classifier, and the classifier they make: the labels of the manifest, and a
    /// normalisation fitted to the windows.
    ///
    /// # Errors
    /// See [`Dataset::load`].
    pub fn begin(manifest: &Manifest, signal: SignalFormat, config: &TrainConfig) -> Result<(Self, Classifier)> {
        let dataset = Dataset::load(manifest, Split::Train, &signal)?;
        let normalisation = Normalisation::fit(&dataset);
        let labels = manifest.labels().to_vec();
        let classifier = Classifier { labels, signal, normalization: normalisation.clone() };
        Ok((Self { dataset, normalisation, label_smoothing: config.label_smoothing }, classifier))
    }

    /// A batch as tensors: the windows `[batch, channels, samples]` and their labels.
    fn batch(&self, indices: &[usize], device: &Device) -> Result<(Tensor<3>, Vec<usize>)> {
        let (mut windows, mut labels) = (Vec::new(), Vec::new());
        self.dataset.fill(indices, &self.normalisation, &mut windows, &mut labels)?;
        let shape = [indices.len(), self.dataset.channels(), self.dataset.window()];
        Ok((Tensor::from_data(TensorData::new(windows, shape), device), labels))
    }

    /// The logits of every window, in order.
    fn logits(&self, network: &Network, batch_size: usize) -> Result<Vec<Vec<f32>>> {
        let device = network.device();
        let windows: Vec<usize> = (0..self.dataset.len()).collect();
        let mut all = Vec::with_capacity(windows.len());
        for indices in windows.chunks(batch_size.max(1)) {
            let (input, _) = self.batch(indices, &device)?;
            let output = network.forward(input)?;
            let classes = output.dims()[1];
            all.extend(values::of(output).chunks(classes.max(1)).map(<[f32]>::to_vec));
        }
        match all.iter().position(|logits| logits.iter().any(|logit| !logit.is_finite())) {
            Some(window) => {
                let place = self.dataset.source(window).map(|source| source.path.display().to_string());
                Err(Error::new(Subject::Diverged, "the network's output is not finite")
                    .at(place.unwrap_or_default())
                    .with_hint("the weights or the adapter are broken: `lowrank inspect` counts non-finite values"))
            }
            None => Ok(all),
        }
    }

    /// What the network says about window `index`; none past the last.
    fn prediction<'a>(&'a self, index: usize, logits: &'a [f32]) -> Option<Prediction<'a>> {
        let rate = self.dataset.rate();
        #[expect(clippy::cast_precision_loss, reason = "a position in memory is far below 2^53")]
        let seconds = |sample: usize| sample as f64 / rate;
        let name = |label: usize| self.dataset.labels().get(label).map_or("", String::as_str);
        let source = self.dataset.source(index)?;
        Some(Prediction {
            path: source.path.display().to_string(),
            start: seconds(source.start),
            end: seconds(source.end),
            label: self.dataset.labelled().then(|| name(source.label)),
            predicted: name(argmax(logits)),
            logits,
        })
    }
}

impl Examples for Windows {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn unit(&self) -> &'static str {
        "window"
    }

    fn warnings(&self) -> &[String] {
        self.dataset.warnings()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let count = |class: usize| self.dataset.window_labels().filter(|label| *label == class).count() as u64;
        self.dataset.labels().iter().enumerate().map(|(class, label)| (label.clone(), count(class))).collect()
    }

    fn loss(&self, network: &Network, indices: &[usize]) -> Result<Tensor<1>> {
        let device = network.device();
        let (input, labels) = self.batch(indices, &device)?;
        let count = labels.len();
        let labels: Vec<i64> = labels.into_iter().map(|label| i64::try_from(label).unwrap_or(i64::MAX)).collect();
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [count]), &device);
        let smoothing = (self.label_smoothing > 0.0).then_some(self.label_smoothing);
        let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&device);
        Ok(loss.forward(network.forward(input)?, labels))
    }

    /// Accuracy, macro-F1, confusion matrix and mean cross-entropy.
    fn evaluate(&self, network: &Network, batch_size: usize) -> Result<tasks::Evaluation> {
        let mut confusion = ConfusionMatrix::new(self.dataset.labels().to_vec());
        let mut loss = MeanLoss::default();
        for (logits, label) in self.logits(network, batch_size)?.iter().zip(self.dataset.window_labels()) {
            confusion.add(label, argmax(logits))?;
            loss.add(cross_entropy(logits, label), 1);
        }
        Ok(tasks::Evaluation::Classification(Evaluation::new(confusion, loss)))
    }

    fn predict(&self, network: &Network, batch_size: usize) -> Result<Predictions> {
        let (mut predictions, mut labelled, mut right) = (Predictions::default(), 0, 0);
        for (index, logits) in self.logits(network, batch_size)?.iter().enumerate() {
            let Some(prediction) = self.prediction(index, logits) else { continue };
            labelled += u64::from(prediction.label.is_some());
            right += u64::from(prediction.label == Some(prediction.predicted));
            predictions.push(&prediction)?;
        }
        let windows = predictions.lines.len() as u64;
        predictions.counts = vec![("windows", windows), ("labelled", labelled), ("right", right)];
        Ok(predictions)
    }
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

/// `log Σ exp(logits) - logits[label]`.
fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    sum.ln() + f64::from(max) - f64::from(logits[label])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_minus_the_log_of_the_softmax() {
        let loss = cross_entropy(&[1.0, 2.0, 3.0], 2);
        let softmax = 3f64.exp() / (1f64.exp() + 2f64.exp() + 3f64.exp());
        assert!((loss + softmax.ln()).abs() < 1e-6);
        assert!(cross_entropy(&[1000.0, 0.0], 0).abs() < 1e-12);
    }

    #[test]
    fn a_tie_goes_to_the_first_class() {
        assert_eq!(argmax(&[0.0, 3.0, 3.0]), 1);
    }
}

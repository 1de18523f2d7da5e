//! What a network says about every window of a dataset.

use burn::tensor::{Device, Tensor, TensorData};
use lowrank::{Error, Result, Subject};
use serde::Serialize;

use super::metrics::{ConfusionMatrix, Evaluation, MeanLoss};
use crate::data::{Dataset, Normalisation};
use crate::models::Network;

/// What a network says about one window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The recording.
    pub path: String,
    /// Where the window starts, in seconds.
    pub start: f64,
    /// Where it ends, in seconds.
    pub end: f64,
    /// What the manifest says it is.
    pub label: String,
    /// What the network says it is.
    pub predicted: String,
    /// One number a class, before softmax.
    pub logits: Vec<f32>,
}

/// A batch as tensors: the windows `[batch, channels, samples]` and their labels.
pub(super) fn batch(
    dataset: &Dataset,
    normalisation: &Normalisation,
    indices: &[usize],
    device: &Device,
) -> Result<(Tensor<3>, Vec<usize>)> {
    let (mut windows, mut labels) = (Vec::new(), Vec::new());
    dataset.fill(indices, normalisation, &mut windows, &mut labels)?;
    let shape = [indices.len(), dataset.channels(), dataset.window()];
    Ok((Tensor::from_data(TensorData::new(windows, shape), device), labels))
}

/// The logits of every window, in order. The network has to be on a device without autodiff (`model.valid()`).
///
/// # Errors
/// When the normalisation does not fit the dataset, or a logit is not finite.
pub fn logits(
    network: &Network,
    dataset: &Dataset,
    normalisation: &Normalisation,
    batch_size: usize,
    device: &Device,
) -> Result<Vec<Vec<f32>>> {
    let windows: Vec<usize> = (0..dataset.len()).collect();
    let mut all = Vec::with_capacity(windows.len());
    for indices in windows.chunks(batch_size.max(1)) {
        let (input, _) = batch(dataset, normalisation, indices, device)?;
        let output = network.forward(input);
        let classes = output.dims()[1];
        all.extend(crate::values::of(output).chunks(classes.max(1)).map(<[f32]>::to_vec));
    }
    match all.iter().position(|logits| logits.iter().any(|logit| !logit.is_finite())) {
        Some(window) => {
            let place = dataset.source(window).map(|source| source.path.display().to_string()).unwrap_or_default();
            Err(Error::new(Subject::Diverged, "the network's output is not finite")
                .at(place)
                .with_hint("the weights or the adapter are broken: `lowrank inspect` counts non-finite values"))
        }
        None => Ok(all),
    }
}

/// Accuracy, macro-F1, confusion matrix and mean cross-entropy of logits against a dataset's labels.
///
/// # Errors
/// When there are not as many logits as windows, or not as many classes as labels.
pub fn score(logits: &[Vec<f32>], dataset: &Dataset) -> Result<Evaluation> {
    let mut confusion = ConfusionMatrix::new(dataset.labels().to_vec());
    let mut loss = MeanLoss::default();
    for (logits, label) in logits.iter().zip(dataset.window_labels()) {
        confusion.add(label, argmax(logits))?;
        loss.add(cross_entropy(logits, label), 1);
    }
    Ok(Evaluation::new(confusion, loss))
}

/// Every window with what was said about it.
#[must_use]
pub fn predictions(logits: Vec<Vec<f32>>, dataset: &Dataset, rate: f64) -> Vec<Prediction> {
    #[expect(clippy::cast_precision_loss, reason = "a position in memory is far below 2^53")]
    let seconds = |sample: usize| sample as f64 / rate;
    let name = |label: usize| dataset.labels().get(label).cloned().unwrap_or_default();
    let described = logits.into_iter().enumerate().filter_map(|(window, logits)| {
        let source = dataset.source(window)?;
        Some(Prediction {
            path: source.path.display().to_string(),
            start: seconds(source.start),
            end: seconds(source.end),
            label: name(source.label),
            predicted: name(argmax(&logits)),
            logits,
        })
    });
    described.collect()
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

//! The loss of CTC.

use burn::nn::loss::CTCLossConfig;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

/// `-log` of the probability of `labels` in the frames of one utterance, over all alignments (Graves et al.,
/// "Connectionist Temporal Classification", 2006): `torch.nn.functional.ctc_loss` of the logits' log-softmax.
///
/// `zero_infinity` takes 0, without a gradient, for the infinity that comes of too few frames.
///
/// # Shapes
/// - `logits`: `[1, frames, classes]`
/// - output: `[1]`
///
/// # Panics
/// When `blank` is not below the number of classes; in a debug build also when there are fewer frames than labels.
#[must_use]
pub fn ctc_loss(logits: Tensor<3>, labels: &[usize], blank: usize, zero_infinity: bool) -> Tensor<1> {
    let device = logits.device();
    let integers = |values: Vec<i64>| {
        let shape = [values.len()];
        Tensor::<1, Int>::from_data(TensorData::new(values, shape), &device)
    };
    let count = |n: usize| integers(vec![i64::try_from(n).unwrap_or(i64::MAX)]);
    // Burn has no matrix of no columns: behind the end of an empty text stands something that is not read.
    let read = if labels.is_empty() { &[blank] } else { labels };
    let targets = integers(read.iter().map(|label| i64::try_from(*label).unwrap_or(i64::MAX)).collect());
    let frames = logits.dims()[1];
    let log_probs = log_softmax(logits, 2).swap_dims(0, 1);
    let loss = CTCLossConfig::new().with_blank(blank).with_zero_infinity(zero_infinity).init();
    loss.forward(log_probs, targets.unsqueeze(), count(frames), count(labels.len()))
}

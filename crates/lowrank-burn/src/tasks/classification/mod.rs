//! One class for each window of a recording: cross-entropy, accuracy, F1, what was taken for what.

mod classifier;
mod metrics;
mod windows;

pub use classifier::Classifier;
pub(crate) use metrics::figure;
pub use metrics::{ClassMetrics, ConfusionMatrix, Evaluation, MeanLoss};
pub use windows::Windows;

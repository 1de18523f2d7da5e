//! Speech or none for each frame of a recording: binary cross-entropy; F1, area under the curve, false alarms and misses.

mod detector;
mod metrics;
mod recordings;
mod track;

pub use detector::Detector;
pub use metrics::{Evaluation, Figures, RecordingFigures};
pub use recordings::Recordings;
pub use track::Track;

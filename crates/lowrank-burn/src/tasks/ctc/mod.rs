//! Speech recognition with a character for each frame: connectionist temporal classification (Graves et al., 2006).

mod align;
mod decode;
mod loss;
mod metrics;
mod recogniser;
mod utterances;
mod vocabulary;

pub use align::align;
pub use decode::{beam_search, greedy};
pub use loss::ctc_loss;
pub use metrics::Evaluation;
pub use recogniser::{CtcLossReduction, Recogniser};
pub use utterances::Utterances;
pub use vocabulary::Vocabulary;

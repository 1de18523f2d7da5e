//! The text of each recording: cross-entropy on given texts, word and character error rates on generated ones.
//!
//! A manifest has the columns `path` and `text`. Every recording stands in one window, followed by silence; without a text
//! to learn, a longer one is cut into windows that follow each other. Texts are compared as [`normalised`] has them.

mod augmentation;
mod error_rate;
mod evaluation;
mod subtitles;
mod tokens;
mod transcriber;
mod utterances;

pub use augmentation::Augmentation;
pub use error_rate::{ErrorRate, normalised};
pub use evaluation::{Evaluation, Tally};
pub use subtitles::subtitles;
pub use tokens::TextTokens;
pub use transcriber::Transcriber;
pub use utterances::Utterances;

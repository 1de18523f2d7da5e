//! Recordings, and the windows a model is trained on.
//!
//! Audio and sensor recordings are one thing here, a [`Signal`]: channels x samples at a rate. A [`Manifest`] (a CSV
//! file) says which recordings there are, what they show and which split they belong to; [`Dataset::load`] decodes one
//! split, brings it to the [`SignalFormat`] of the model and cuts it into windows; [`Normalisation`] is fitted on the
//! training windows and travels with the base model; [`Dataset::fill`] writes a normalised batch into the caller's
//! buffer. Nothing here knows about tensors.
//!
//! Everything is a function of the files and of `(seed, epoch)`: not of the number of threads, and not of what was
//! read before. A run's place in its data is therefore two integers, the epoch and the batch:
//!
//! ```no_run
//! # use lowrank_burn::data::{Dataset, Manifest, Normalisation, SignalFormat, Split};
//! # fn run(format: SignalFormat) -> lowrank::Result<()> {
//! let manifest = Manifest::read("watch/manifest.csv".as_ref(), None)?;
//! let train = Dataset::load(&manifest, Split::Train, &format)?;
//! let normalisation = Normalisation::fit(&train);
//! let (mut batch, mut labels) = (Vec::new(), Vec::new());
//! for indices in train.order(42, 0).chunks(16) {
//!     train.fill(indices, &normalisation, &mut batch, &mut labels)?; // batch: [windows, channels, samples]
//! }
//! # Ok(())
//! # }
//! ```

mod balance;
mod dataset;
mod decode;
mod manifest;
mod normalisation;
mod part;
mod resample;
mod signal;
mod span;
mod utterances;

pub use balance::{Balance, ClassBalance};
pub use dataset::{Dataset, Source};
pub use manifest::{Manifest, Recording, Split};
pub use normalisation::Normalisation;
pub use part::Part;
pub use signal::{Reading, Signal, SignalFormat};
pub use span::{Bound, Span};
pub use utterances::{Utterance, utterances};

//! The models, as `peers/networks.py` has them: the same layers, sizes and adapted modules.

mod hifigan;
pub mod tcn;
mod wav2vec2;
mod whisper;

use std::marker::PhantomData;

use anyhow::{Result, bail};
use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};

use super::manager::Manager;
use super::trainer::Trainer;
use crate::peer::Peer;

/// A model and what it is trained on.
pub trait Net: Sync + Module + 'static {
    /// What gets an adapter: a word of `target_modules`, or names of modules.
    const TARGETS: &[&str];
    /// Channels and positions of an input.
    const INPUT: [usize; 2];

    /// A model with random weights.
    fn new(device: &Device) -> Self;

    /// The loss of a batch.
    fn loss(&self, batch: &Batch) -> Tensor<1>;
}

/// Random inputs with something to learn from.
pub struct Batch {
    /// `[batch, channels, positions]`.
    pub x: Tensor<3>,
    /// As `x`, for models that end in a signal.
    pub signal: Tensor<3>,
    examples: usize,
}

impl Batch {
    /// So many inputs of a model.
    pub fn new<M: Net>(examples: usize, device: &Device) -> Self {
        let [channels, positions] = M::INPUT;
        let random = || Tensor::random([examples, channels, positions], Distribution::Normal(0.0, 1.0), device);
        Self { x: random(), signal: random(), examples }
    }

    /// A class for each example, in turn.
    pub fn labels(&self, classes: usize) -> Tensor<1, Int> {
        let range = 0..i64::try_from(self.examples).unwrap_or(i64::MAX);
        Tensor::arange(range, &self.x.device()).remainder_scalar(i64::try_from(classes).unwrap_or(i64::MAX))
    }
}

/// What is measured of a model.
pub trait Task {
    /// Training it, on so many examples a step.
    fn trainer(&self, examples: usize) -> Result<Box<dyn Peer>>;

    /// What is done with its adapters outside of training, on so many examples.
    fn manager(&self, examples: usize) -> Result<Box<dyn Peer>>;
}

struct Of<M>(PhantomData<M>);

impl<M: Net> Task for Of<M> {
    fn trainer(&self, examples: usize) -> Result<Box<dyn Peer>> {
        Ok(Box::new(Trainer::<M>::new(examples)?))
    }

    fn manager(&self, examples: usize) -> Result<Box<dyn Peer>> {
        Ok(Box::new(Manager::<M>::new(examples)?))
    }
}

/// The model of that name.
pub fn task(name: &str) -> Result<Box<dyn Task>> {
    Ok(match name {
        "tcn" => Box::new(Of::<tcn::Tcn>(PhantomData)),
        "whisper" => Box::new(Of::<whisper::Whisper>(PhantomData)),
        "wav2vec2" => Box::new(Of::<wav2vec2::Wav2Vec2>(PhantomData)),
        "hifigan" => Box::new(Of::<hifigan::HifiGan>(PhantomData)),
        other => bail!("there is no model {other}"),
    })
}

//! What one adapter does to a weight: `W <- gain * (W + delta)`, the gain being `DoRA`'s.

use super::delta::Delta;
use super::dora::{Norms, gain};
use super::factors::Factors;
use super::probe::Precision;
use crate::{Error, Result};

/// An adapter on a weight that may have to be measured first.
#[derive(Debug, Clone)]
pub(super) struct Adding<T> {
    pub delta: Delta<T>,
    magnitude: Option<(Vec<f32>, Norms<T>)>,
}

/// An adapter whose gain is known: one value an output, or none without `DoRA`.
#[derive(Debug)]
pub(super) struct Step<'a, T> {
    pub delta: &'a Delta<T>,
    pub gain: Option<Vec<T>>,
}

impl<T: Precision> Adding<T> {
    /// # Errors
    /// When a `dense` adapter has entries that do not fit the grouped weight.
    pub fn new(factors: &Factors) -> Result<Self> {
        let delta = Delta::of_weight(factors)?;
        let magnitude = factors.magnitude().map(|magnitude| {
            let norms = Norms::new(factors, magnitude.norm)?;
            Ok::<_, Error>((magnitude.values.clone(), norms))
        });
        Ok(Self { delta, magnitude: magnitude.transpose()? })
    }

    /// An adapter that only adds.
    pub fn plain(delta: Delta<T>) -> Self {
        Self { delta, magnitude: None }
    }

    /// Whether the weight has to be measured.
    pub fn measures(&self) -> bool {
        self.magnitude.is_some()
    }

    /// Takes in rows of the base; see [`Norms::measure`].
    pub fn measure(&mut self, first: usize, weight: &[T]) -> Result<()> {
        self.magnitude.as_mut().map_or(Ok(()), |(_, norms)| norms.measure(first, weight))
    }

    pub fn step(&self) -> Result<Step<'_, T>> {
        let gain = self.magnitude.as_ref().map(|(magnitude, norms)| {
            Ok::<_, Error>(magnitude.iter().zip(norms.finish()?).map(|(m, norm)| T::of(gain(*m, norm))).collect())
        });
        Ok(Step { delta: &self.delta, gain: gain.transpose()? })
    }
}

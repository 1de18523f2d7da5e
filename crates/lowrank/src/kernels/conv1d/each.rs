//! A batch in which every signal has a weight of its own, in one pass.

use rayon::prelude::*;

use super::super::activation::Activation;
use super::super::buffers::written;
use super::super::shared::Shared;
use super::forward::{forward, has_tiles, in_tiles};
use super::product::Epilogue;
use super::signals::{Places, Signals};
use super::{Problem, Weight};
use crate::threads::awake;

/// What some signals of a batch are convolved with.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The weight, and what is folded into it.
    pub weight: Weight<'a>,
    /// The bias, `(out)`.
    pub bias: Option<&'a [f32]>,
}

/// [`forward`] with the layer `which[n]` for signal `n`.
///
/// The signals of a layer are convolved together, wherever they stand, so that its weight is folded and packed once, and
/// side by side with those of the others.
///
/// # Panics
/// When a slice does not have the size of its shape, `which` that of the batch, where it names no layer, and where
/// [`Problem::output_length`] is an error.
#[must_use]
#[expect(unsafe_code, reason = "the output is fresh memory")]
pub fn forward_each(
    problem: &Problem<'_>,
    x: &[f32],
    layers: &[Layer<'_>],
    which: &[usize],
    activation: Activation,
) -> Vec<f32> {
    let (inputs, outputs, n) = (problem.inputs(), problem.outputs(), problem.row());
    let out = outputs.groups * outputs.channels;
    assert_eq!(which.len(), problem.batch, "a layer for every signal");
    for Layer { weight, bias } in layers {
        assert!(weight.fits(out, n), "values of a weight");
        assert!(bias.is_none_or(|bias| bias.len() == out), "values of a bias");
    }
    let x = Signals::new(x, inputs, problem.batch, "x");
    let mut places = vec![Vec::new(); layers.len()];
    which.iter().enumerate().for_each(|(sample, layer)| places[*layer].push(sample));
    // SAFETY: every signal is in one place of one layer, and all its outputs are written.
    unsafe {
        written(outputs.len(problem.batch), |y| {
            let y = Shared::new(y);
            let shares = layers.par_iter().zip(&places).filter(|(_, places)| !places.is_empty());
            awake(|| shares.for_each(|(layer, places)| share(problem, x, layer, places, activation, &y)));
        })
    }
}

/// The signals of one layer.
fn share(
    problem: &Problem<'_>,
    x: Signals<'_>,
    Layer { weight, bias }: &Layer<'_>,
    places: &[usize],
    activation: Activation,
    y: &Shared<'_>,
) {
    let problem = Problem { batch: places.len(), ..*problem };
    if has_tiles(&problem) {
        let x = Signals { places: Places(Some(places)), ..x };
        return in_tiles(&problem, x, weight, Epilogue { bias: *bias, activation }, y);
    }
    let [signal, output] = [x.rows.len(1), problem.outputs().len(1)];
    let own: Vec<f32> = places.iter().flat_map(|place| &x.values[place * signal..][..signal]).copied().collect();
    scatter(&forward(&problem, &own, weight, *bias, activation), output, places, y);
}

/// Outputs that follow one another to the places of their signals.
#[expect(unsafe_code, reason = "the places of a layer are its own")]
fn scatter(outputs: &[f32], len: usize, places: &[usize], y: &Shared<'_>) {
    for (place, output) in places.iter().zip(outputs.chunks_exact(len.max(1))) {
        // SAFETY: no other layer has a signal in this place.
        unsafe { y.part(place * len, len) }.copy_from_slice(output);
    }
}

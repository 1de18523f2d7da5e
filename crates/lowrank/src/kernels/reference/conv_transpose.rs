//! Transposed convolutions over one to three axes.
//!
//! Each is given as the convolution whose transpose it is: from its outputs to its inputs, with the same weight. The
//! positions of its output are the `lengths` that this convolution reads, `output_lengths` of them are its input.

use super::Gradients;
use super::conv::Terms;
use crate::Result;
use crate::geometry::ConvGeometry;

/// `y[n, o, source] = bias[o] + sum w[i, o, t] * x[n, i, place]`, over all places and taps that read `source`.
///
/// `x` has the shape `(batch, in, output_lengths..)`, `w` `(in, out/g, k..)`, `y` `(batch, out, lengths..)`.
///
/// # Errors
/// When the geometry has no output for `lengths`.
pub fn forward(
    geometry: &ConvGeometry,
    lengths: &[usize],
    x: &[f64],
    w: &[f64],
    bias: Option<&[f64]>,
) -> Result<Vec<f64>> {
    let values = outputs(geometry, lengths, x.len())?;
    let mut y = vec![0.0; values];
    if let Some(bias) = bias {
        for (index, y) in y.iter_mut().enumerate() {
            *y = bias[channel_of(geometry, lengths, index)];
        }
    }
    Terms::new(geometry, lengths, values)?.each(|term| y[term.x] += w[term.w] * x[term.y]);
    Ok(y)
}

/// The gradients of `sum(dy * forward(x, w, bias))`.
///
/// # Errors
/// When the geometry has no output for `lengths`.
///
/// # Panics
/// When `dy` has not the size of the output.
pub fn backward(geometry: &ConvGeometry, lengths: &[usize], x: &[f64], w: &[f64], dy: &[f64]) -> Result<Gradients> {
    assert_eq!(dy.len(), outputs(geometry, lengths, x.len())?, "values of dy");
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    Terms::new(geometry, lengths, dy.len())?.each(|term| {
        dx[term.y] += dy[term.x] * w[term.w];
        dw[term.w] += dy[term.x] * x[term.y];
    });
    let mut dbias = vec![0.0; geometry.in_channels()];
    for (index, dy) in dy.iter().enumerate() {
        dbias[channel_of(geometry, lengths, index)] += dy;
    }
    Ok(Gradients { dx, dw, dbias })
}

/// Values of the output, for so many of the input.
fn outputs(geometry: &ConvGeometry, lengths: &[usize], inputs: usize) -> Result<usize> {
    let sample = geometry.out_channels() * geometry.output_lengths(lengths)?.iter().product::<usize>();
    Ok(inputs / sample * geometry.in_channels() * lengths.iter().product::<usize>())
}

fn channel_of(geometry: &ConvGeometry, lengths: &[usize], y: usize) -> usize {
    y / lengths.iter().product::<usize>() % geometry.in_channels()
}

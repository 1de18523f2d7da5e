//! Convolutions over one to three axes.

use super::Gradients;
use crate::Result;
use crate::geometry::ConvGeometry;

/// `y[n, o, ..] = bias[o] + sum_{i, t} w[o, i, t] * x[n, group(o) + i, ..]` for `x` of shape `(batch, in, lengths..)`.
///
/// `y` has the shape `(batch, out, output_lengths..)`. Taps that read padding read what the padding mode says.
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
    let terms = Terms::new(geometry, lengths, x.len())?;
    let mut y = vec![0.0; terms.outputs()];
    if let Some(bias) = bias {
        for (index, y) in y.iter_mut().enumerate() {
            *y = bias[terms.channel_of(index)];
        }
    }
    terms.each(|term| y[term.y] += w[term.w] * x[term.x]);
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
    let terms = Terms::new(geometry, lengths, x.len())?;
    assert_eq!(dy.len(), terms.outputs(), "values of dy");
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    terms.each(|term| {
        dx[term.x] += dy[term.y] * w[term.w];
        dw[term.w] += dy[term.y] * x[term.x];
    });
    let mut dbias = vec![0.0; geometry.out_channels()];
    for (index, dy) in dy.iter().enumerate() {
        dbias[terms.channel_of(index)] += dy;
    }
    Ok(Gradients { dx, dw, dbias })
}

/// One product of the convolution: `y[y] += w[w] * x[x]`.
pub(super) struct Term {
    pub y: usize,
    pub w: usize,
    pub x: usize,
}

/// All products of a convolution.
pub(super) struct Terms<'a> {
    geometry: &'a ConvGeometry,
    batch: usize,
    /// Values in a channel of the input, and of the output.
    lengths: (usize, usize),
    /// For each output of a channel and each tap, the place in a channel of the input that it reads.
    sources: Vec<Vec<Option<usize>>>,
}

impl<'a> Terms<'a> {
    pub fn new(geometry: &'a ConvGeometry, lengths: &[usize], inputs: usize) -> Result<Self> {
        let output_lengths = geometry.output_lengths(lengths)?;
        let kernel: Vec<usize> = geometry.axes().iter().map(|axis| axis.kernel).collect();
        let taps = positions(&kernel);
        let reads = |at: &Vec<usize>| taps.iter().map(|tap| source(geometry, lengths, at, tap)).collect();
        let sources: Vec<_> = positions(&output_lengths).iter().map(reads).collect();
        let lengths = (lengths.iter().product(), sources.len());
        assert_eq!(inputs % (geometry.in_channels() * lengths.0), 0, "values of x");
        Ok(Self { geometry, batch: inputs / (geometry.in_channels() * lengths.0), lengths, sources })
    }

    fn outputs(&self) -> usize {
        self.batch * self.geometry.out_channels() * self.lengths.1
    }

    fn channel_of(&self, y: usize) -> usize {
        y / self.lengths.1 % self.geometry.out_channels()
    }

    pub fn each(&self, mut visit: impl FnMut(Term)) {
        let geometry = self.geometry;
        let inputs = geometry.in_channels() / geometry.groups();
        let outputs = geometry.out_channels() / geometry.groups();
        for n in 0..self.batch {
            for o in 0..geometry.out_channels() {
                for i in 0..inputs {
                    let from = n * geometry.in_channels() + o / outputs * inputs + i;
                    let to = n * geometry.out_channels() + o;
                    for (place, taps) in self.sources.iter().enumerate() {
                        for (tap, source) in taps.iter().enumerate() {
                            let Some(source) = source else { continue };
                            let w = (o * inputs + i) * taps.len() + tap;
                            visit(Term { y: to * self.lengths.1 + place, w, x: from * self.lengths.0 + source });
                        }
                    }
                }
            }
        }
    }
}

/// The place in a channel of the input that a tap of an output reads; `None` where it reads a zero.
fn source(geometry: &ConvGeometry, lengths: &[usize], output: &[usize], tap: &[usize]) -> Option<usize> {
    let mut place = 0;
    for (index, axis) in geometry.axes().iter().enumerate() {
        let padded = output[index] * axis.stride + tap[index] * axis.dilation;
        place = place * lengths[index] + geometry.source(index, padded, lengths[index])?;
    }
    Some(place)
}

/// All indices into an array of `lengths`, in row-major order.
fn positions(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut positions = vec![vec![]];
    for length in lengths {
        let longer = |position: &Vec<usize>| (0..*length).map(|at| [&position[..], &[at]].concat()).collect::<Vec<_>>();
        positions = positions.iter().flat_map(longer).collect();
    }
    positions
}

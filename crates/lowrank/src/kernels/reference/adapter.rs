//! Adapters: the delta and its chain rule, and the way beside the base, `scale * B(A(x))`.
//!
//! The two ways are each other's check. They agree wherever the delta fits the weight, which is everywhere but for a
//! [`GroupMode::Dense`] adapter that reaches outside its groups.

use super::{AdapterGradients, conv, conv_transpose, linear};
use crate::Result;
use crate::adapter::{Factors, GroupMode, Layer};
use crate::geometry::{Axis, ConvGeometry, PaddingMode};

/// [`Factors`] in `f64`.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The layer the adapter is for.
    pub layer: Layer,
    /// The grouped form.
    pub mode: GroupMode,
    /// Rows of `A`.
    pub rank: usize,
    /// What the product is multiplied with.
    pub scale: f64,
    /// `A`, in the shape of [`Layer::a_shape`].
    pub a: Vec<f64>,
    /// `B`, in the shape of [`Layer::b_shape`].
    pub b: Vec<f64>,
    /// The bias of `B`.
    pub bias: Option<Vec<f64>>,
}

/// One product of the delta: `delta[delta] += scale * b[b] * a[a]`.
struct Term {
    delta: usize,
    b: usize,
    a: usize,
}

impl Adapter {
    /// The same values.
    #[must_use]
    pub fn new(factors: &Factors) -> Self {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect();
        Self {
            layer: factors.layer().clone(),
            mode: factors.mode(),
            rank: factors.rank(),
            scale: factors.scale().into(),
            a: wide(factors.a()),
            b: wide(factors.b()),
            bias: factors.bias().map(wide),
        }
    }

    /// `delta[o, i, t] = scale * sum_p B[o, p] * A_j[p, i, t]` for the group `j` of `o`, in the shape of the weight. Of a
    /// dense adapter that is the part inside the groups.
    #[must_use]
    pub fn delta(&self) -> Vec<f64> {
        let mut delta = vec![0.0; self.layer.weight_shape().iter().product()];
        self.each(|term| delta[term.delta] += self.scale * self.b[term.b] * self.a[term.a]);
        delta
    }

    /// From the gradient by the weight to those by `A` and `B`: `dA = scale * B^T dW`, `dB = scale * dW A^T`.
    #[must_use]
    pub fn delta_backward(&self, dw: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut da, mut db) = (vec![0.0; self.a.len()], vec![0.0; self.b.len()]);
        self.each(|term| {
            da[term.a] += self.scale * self.b[term.b] * dw[term.delta];
            db[term.b] += self.scale * self.a[term.a] * dw[term.delta];
        });
        (da, db)
    }

    /// The delta over all inputs, of shape `(out, in, k..)`: what a dense adapter is, also outside the groups.
    ///
    /// # Panics
    /// When the adapter is in another form.
    #[must_use]
    pub fn dense_delta(&self) -> Vec<f64> {
        assert_eq!(self.mode, GroupMode::Dense, "the form that reaches all inputs");
        let (groups, outputs) = (self.layer.groups(), self.layer.out_features());
        let (rank, columns) = (self.rank / groups, self.a.len() / self.rank);
        let mut delta = vec![0.0; outputs * columns];
        for o in 0..outputs {
            for p in 0..rank {
                let row = o / (outputs / groups) * rank + p;
                for c in 0..columns {
                    delta[o * columns + c] += self.scale * self.b[o * rank + p] * self.a[row * columns + c];
                }
            }
        }
        delta
    }

    fn each(&self, mut visit: impl FnMut(Term)) {
        let (inputs, outputs) = (self.layer.in_features(), self.layer.out_features());
        let (groups, taps) = (self.layer.groups(), self.layer.kernel().iter().product::<usize>());
        let (per_group, outputs_per_group) = (inputs / groups, outputs / groups);
        let rank = if self.mode == GroupMode::Shared { self.rank } else { self.rank / groups };
        for o in 0..outputs {
            let group = o / outputs_per_group;
            for p in 0..rank {
                for i in 0..per_group {
                    for t in 0..taps {
                        let (row, column, row_length) = match self.mode {
                            GroupMode::Dense => (group * rank + p, group * per_group + i, inputs),
                            GroupMode::PerGroup => (group * rank + p, i, per_group),
                            GroupMode::Shared => (p, i, per_group),
                        };
                        let delta = if self.layer.kind().is_transposed() {
                            ((group * per_group + i) * outputs_per_group + o % outputs_per_group) * taps + t
                        } else {
                            (o * per_group + i) * taps + t
                        };
                        visit(Term { delta, b: o * rank + p, a: (row * row_length + column) * taps + t });
                    }
                }
            }
        }
    }

    /// `scale * B(A(x))` of a convolution: `A` has the geometry of the base, all of it, and `B` a kernel of one tap.
    ///
    /// # Errors
    /// When the geometry has no output for `lengths`.
    pub fn conv_forward(&self, base: &ConvGeometry, lengths: &[usize], x: &[f64]) -> Result<Vec<f64>> {
        let (first, second) = self.steps(base)?;
        let h = conv::forward(&first, lengths, x, &self.rows(), None)?;
        let y = conv::forward(&second, &base.output_lengths(lengths)?, &h, &self.b, self.bias.as_deref())?;
        Ok(self.scaled(&y))
    }

    /// The gradients of `sum(dy * conv_forward(x))`.
    ///
    /// # Errors
    /// When the geometry has no output for `lengths`.
    pub fn conv_backward(
        &self,
        base: &ConvGeometry,
        lengths: &[usize],
        x: &[f64],
        dy: &[f64],
    ) -> Result<AdapterGradients> {
        let (first, second) = self.steps(base)?;
        let rows = self.rows();
        let h = conv::forward(&first, lengths, x, &rows, None)?;
        let up = conv::backward(&second, &base.output_lengths(lengths)?, &h, &self.b, &self.scaled(dy))?;
        let down = conv::backward(&first, lengths, x, &rows, &up.dx)?;
        let mut da = vec![0.0; self.a.len()];
        for (index, value) in down.dw.iter().enumerate() {
            da[index % self.a.len()] += value;
        }
        Ok(AdapterGradients { dx: down.dx, da, db: up.dw, dbias: up.dbias })
    }

    /// `scale * B(A(x))` of a transposed convolution, whose base is the transpose of `base`, and so is `A`; `lengths` are
    /// those of the output.
    ///
    /// # Errors
    /// When the geometry has no output for `lengths`.
    pub fn conv_transpose_forward(&self, base: &ConvGeometry, lengths: &[usize], x: &[f64]) -> Result<Vec<f64>> {
        let (first, second) = self.transposed_steps(base)?;
        let rows = self.rows();
        let rows: Vec<f64> = Self::inputs_first(&first).into_iter().map(|at| rows[at]).collect();
        let h = conv_transpose::forward(&first, lengths, x, &rows, None)?;
        Ok(self.scaled(&conv::forward(&second, lengths, &h, &self.b, self.bias.as_deref())?))
    }

    /// The gradients of `sum(dy * conv_transpose_forward(x))`.
    ///
    /// # Errors
    /// When the geometry has no output for `lengths`.
    pub fn conv_transpose_backward(
        &self,
        base: &ConvGeometry,
        lengths: &[usize],
        x: &[f64],
        dy: &[f64],
    ) -> Result<AdapterGradients> {
        let (first, second) = self.transposed_steps(base)?;
        let places = Self::inputs_first(&first);
        let rows = self.rows();
        let rows: Vec<f64> = places.iter().map(|at| rows[*at]).collect();
        let h = conv_transpose::forward(&first, lengths, x, &rows, None)?;
        let up = conv::backward(&second, lengths, &h, &self.b, &self.scaled(dy))?;
        let down = conv_transpose::backward(&first, lengths, x, &rows, &up.dx)?;
        let mut da = vec![0.0; self.a.len()];
        for (place, value) in places.iter().zip(&down.dw) {
            da[place % self.a.len()] += value;
        }
        Ok(AdapterGradients { dx: down.dx, da, db: up.dw, dbias: up.dbias })
    }

    /// `scale * B(A(x))` of a linear layer, [`Conv1D`](crate::adapter::LayerKind::Conv1D) included.
    #[must_use]
    pub fn linear_forward(&self, x: &[f64]) -> Vec<f64> {
        let (inputs, outputs) = (self.layer.in_features(), self.layer.out_features());
        let h = linear::forward(inputs, self.rank, x, &self.a, None);
        self.scaled(&linear::forward(self.rank, outputs, &h, &self.b, self.bias.as_deref()))
    }

    /// The gradients of `sum(dy * linear_forward(x))`.
    #[must_use]
    pub fn linear_backward(&self, x: &[f64], dy: &[f64]) -> AdapterGradients {
        let (inputs, outputs) = (self.layer.in_features(), self.layer.out_features());
        let h = linear::forward(inputs, self.rank, x, &self.a, None);
        let up = linear::backward(self.rank, outputs, &h, &self.b, &self.scaled(dy));
        let down = linear::backward(inputs, self.rank, x, &self.a, &up.dx);
        AdapterGradients { dx: down.dx, da: down.dw, db: up.dw, dbias: up.dbias }
    }

    /// `scale * B A[:, id]` of an embedding.
    #[must_use]
    pub fn embedding_forward(&self, ids: &[usize]) -> Vec<f64> {
        let h = self.columns(ids);
        self.scaled(&linear::forward(self.rank, self.layer.out_features(), &h, &self.b, None))
    }

    /// The gradients of `sum(dy * embedding_forward(ids))`.
    #[must_use]
    pub fn embedding_backward(&self, ids: &[usize], dy: &[f64]) -> AdapterGradients {
        let (rows, dim) = (self.layer.in_features(), self.layer.out_features());
        let up = linear::backward(self.rank, dim, &self.columns(ids), &self.b, &self.scaled(dy));
        let mut da = vec![0.0; self.a.len()];
        for (n, id) in ids.iter().enumerate() {
            for p in 0..self.rank {
                da[p * rows + id] += up.dx[n * self.rank + p];
            }
        }
        AdapterGradients { dx: Vec::new(), da, db: up.dw, dbias: up.dbias }
    }

    /// Columns of an embedding's `A`, one an index.
    fn columns(&self, ids: &[usize]) -> Vec<f64> {
        let rows = self.layer.in_features();
        ids.iter().flat_map(|id| (0..self.rank).map(move |p| self.a[p * rows + id])).collect()
    }

    /// The convolutions of `A` and of `B`.
    fn steps(&self, base: &ConvGeometry) -> Result<(ConvGeometry, ConvGeometry)> {
        let groups = base.groups();
        let channels = if self.mode == GroupMode::Shared { self.rank * groups } else { self.rank };
        let first_groups = if self.mode == GroupMode::Dense { 1 } else { groups };
        let axes = base.axes().to_vec();
        let points = vec![Axis::new(1); axes.len()];
        Ok((
            ConvGeometry::new(base.in_channels(), channels, first_groups, base.padding_mode(), axes)?,
            ConvGeometry::new(channels, base.out_channels(), groups, PaddingMode::Zeros, points)?,
        ))
    }

    /// The convolutions of `A`, to be transposed, and of `B`.
    fn transposed_steps(&self, base: &ConvGeometry) -> Result<(ConvGeometry, ConvGeometry)> {
        let groups = base.groups();
        let channels = if self.mode == GroupMode::Shared { self.rank * groups } else { self.rank };
        let first_groups = if self.mode == GroupMode::Dense { 1 } else { groups };
        let axes = base.axes().to_vec();
        let points = vec![Axis::new(1); axes.len()];
        Ok((
            ConvGeometry::new(channels, base.out_channels(), first_groups, base.padding_mode(), axes)?,
            ConvGeometry::new(channels, base.in_channels(), groups, PaddingMode::Zeros, points)?,
        ))
    }

    /// For each value of the weight of the transposed convolution of `A`, `(in, r/g, k..)`, its place in `(r, in/g, k..)`.
    fn inputs_first(first: &ConvGeometry) -> Vec<usize> {
        let (inputs, channels, groups) = (first.out_channels(), first.in_channels(), first.groups());
        let (inputs_per_group, channels_per_group) = (inputs / groups, channels / groups);
        let taps: usize = first.axes().iter().map(|axis| axis.kernel).product();
        let mut places = Vec::new();
        for i in 0..inputs {
            for c in 0..channels_per_group {
                for t in 0..taps {
                    let row = i / inputs_per_group * channels_per_group + c;
                    places.push((row * inputs_per_group + i % inputs_per_group) * taps + t);
                }
            }
        }
        places
    }

    /// The weight of the convolution of `A`; a shared one once for each group.
    fn rows(&self) -> Vec<f64> {
        let times = if self.mode == GroupMode::Shared { self.layer.groups() } else { 1 };
        self.a.repeat(times)
    }

    fn scaled(&self, values: &[f64]) -> Vec<f64> {
        values.iter().map(|value| self.scale * value).collect()
    }
}

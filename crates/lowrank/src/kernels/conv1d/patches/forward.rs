//! `y = W·Xᵀ + b`, a plain product: it has the matrix unit where there is one, and no window of many runs.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::super::activation::Activation;
use super::super::super::gemm::Matrix;
use super::super::super::lanes::{Lanes, arch};
use super::super::super::linear::product_of;
use super::super::super::scratch::Buffer;
use super::super::super::shared::Shared;
use super::super::Problem;
use super::super::product::Epilogue;
use super::super::signals::Signals;
use super::super::window::LANES;
use super::{Patches, SHORT, fits, tiles};

/// Times that a value of the input stands in the patches, at most: they are all in memory.
const COPIES: usize = 4;
/// Outputs that make up for the patches; tests take any that patches fit.
const OUTPUTS: usize = if cfg!(test) { 1 } else { 64 };

/// Whether the outputs are computed from patches, whose rows are those of the weight: taps are whole registers.
pub(in super::super) fn fits_forward(problem: &Problem<'_>) -> bool {
    let (outputs, taps, stride) = (problem.outputs(), problem.taps(), problem.geometry.axes()[0].stride);
    fits(problem)
        && outputs.groups == 1
        && outputs.channels >= OUTPUTS
        && taps > SHORT
        && taps.is_multiple_of(LANES)
        && taps <= COPIES * stride
}

/// See `conv1d::forward`; of the folded weight.
pub(in super::super) fn forward(
    problem: &Problem<'_>,
    x: Signals<'_>,
    weight: &[f32],
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (channels, length) = (problem.outputs().channels, problem.columns());
    let (patches, columns) = (Patches::new(problem, x), length * problem.batch);
    let (width, stride) = (patches.width(), patches.row_stride());
    let mut rows = Buffer::new(columns * stride);
    fill(problem, &patches, &mut rows);
    let rows = Matrix { data: &rows, rows: columns, columns: width, row_stride: stride, column_stride: 1 };
    let products = product_of(Matrix::row_major(weight, [channels, width]), rows.transposed());
    y.par_chunks_exact_mut(channels * length).enumerate().for_each(|(sample, y)| {
        arch().dispatch(Finish { products: &products[sample * length..], columns, epilogue, y, length });
    });
}

/// The patches of all columns.
#[expect(unsafe_code, reason = "tiles write their own rows")]
fn fill(problem: &Problem<'_>, patches: &Patches<'_>, rows: &mut [f32]) {
    let (length, stride) = (problem.columns(), patches.row_stride());
    let (tiles, rows) = (tiles(length, problem.batch), Shared::new(rows));
    (0..tiles.count()).into_par_iter().for_each(|index| {
        let tile = tiles.get(index);
        let (first, count) = (tile.sample * length + tile.first, tile.samples * tile.columns);
        // SAFETY: the columns of a tile are its own.
        let rows = unsafe { rows.part(first * stride, count * stride) };
        patches.fill(rows, tile, 0);
    });
}

/// The outputs of one signal.
struct Finish<'a> {
    /// From its first column on.
    products: &'a [f32],
    /// From an output to the next.
    columns: usize,
    epilogue: Epilogue<'a>,
    y: &'a mut [f32],
    length: usize,
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { products, columns, epilogue: Epilogue { bias, activation }, y, length } = self;
        for (output, y) in y.chunks_exact_mut(length).enumerate() {
            let bias = Lanes::splat(simd, bias.map_or(0.0, |bias| bias[output]));
            let products = &products[output * columns..][..length];
            for (y, products) in y.chunks_mut(S::F32_LANES).zip(products.chunks(S::F32_LANES)) {
                let value = Lanes::load(simd, products) + bias;
                let value = if activation == Activation::Identity { value } else { activation.apply(value) };
                value.store(y);
            }
        }
    }
}

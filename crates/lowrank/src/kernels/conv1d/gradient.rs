//! Gradients of the factors, and of a dense weight.

use rayon::prelude::*;

use super::super::scratch;
use super::super::shared::Shared;
use super::forward::reading;
use super::product::{Matrix, Source, add_product};
use super::sums::{Rows, add_sums};
use super::tiles::{Tile, Tiles};
use super::weights::{LowRank, Panels, Strides};
use super::window::{LANES, Layout, Outside, Reading, fill};
use super::{Channels, Problem};

/// Channels whose windows are in memory at a time.
const CHANNELS: usize = 64;
/// Columns of a tile: as many as make the last step of a sum, across a register, small.
const COLUMNS: [usize; 2] = [256, 1024];
/// Partial sums that a batch is cut into, whatever the number of threads.
const PARTS: usize = 8;

/// The gradients `dA (r, n)` and `dB (out, r/blocks)` of factors with a block for every group, of `x (batch, in, length)`
/// and `dy (batch, out, columns)`.
///
/// # Panics
/// When a slice does not have the size of its shape, when there is not one block a group, and where
/// [`Problem::output_length`] is an error.
#[must_use]
pub fn low_rank_gradients(problem: &Problem<'_>, x: &[f32], dy: &[f32], low: &LowRank<'_>) -> (Vec<f32>, Vec<f32>) {
    let Channels { groups, input, output } = problem.channels();
    let (taps, columns) = (problem.taps(), problem.columns());
    assert_eq!(low.blocks, groups, "one block of the factors for each group");
    assert_eq!(x.len(), problem.batch * groups * input * problem.length, "values of x");
    assert_eq!(dy.len(), problem.batch * groups * output * columns, "values of dy");
    assert_eq!(low.a.len(), low.rank * input * taps, "values of A");
    assert_eq!(low.b.len(), groups * output * (low.rank / groups), "values of B");
    let rank = low.rank / groups;
    let reading = reading(problem.geometry);
    let task = Pass { problem, x, dy, reading: &reading, columns, rank, factors: &factors(problem, low) };
    let tiles = tiles(problem, &reading, columns);
    let parts = tiles.count().min(PARTS);
    let partial: Vec<(Vec<f32>, Vec<f32>)> = (0..parts)
        .into_par_iter()
        .map(|part| {
            let mut sums = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
            for tile in tiles.count() * part / parts..tiles.count() * (part + 1) / parts {
                for group in 0..groups {
                    let da = &mut sums.0[group * rank * input * taps..][..rank * input * taps];
                    let db = &mut sums.1[group * output * rank..][..output * rank];
                    OfTile { pass: &task, tile: tiles.get(tile), group, da, db }.run();
                }
            }
            sums
        })
        .collect();
    let mut total = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
    for (da, db) in &partial {
        add_scaled(&mut total.0, da, low.scale);
        add_scaled(&mut total.1, db, low.scale);
    }
    total
}

fn add_scaled(to: &mut [f32], values: &[f32], scale: f32) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += scale * value;
    }
}

fn tiles(problem: &Problem<'_>, reading: &Reading<'_>, columns: usize) -> Tiles {
    let layout = Layout::new(reading, columns, 1);
    let channels = problem.channels();
    let values = channels.input.max(channels.output).min(CHANNELS) * Layout::values_a_column(reading);
    Tiles::new(columns, problem.batch, values, layout.sample_stride - columns, COLUMNS)
}

/// The factors of one group, packed by blocks of channels: `A` over the inputs, `Bᵀ` over the outputs.
struct Factors {
    a: Vec<Panels>,
    bt: Vec<Panels>,
}

fn factors(problem: &Problem<'_>, low: &LowRank<'_>) -> Vec<Factors> {
    let Channels { groups, input, output } = problem.channels();
    let (taps, rank) = (problem.taps(), low.rank / groups);
    let all: Vec<usize> = (0..taps).collect();
    let group = |group: usize| {
        let a = &low.a[group * rank * input * taps..][..rank * input * taps];
        let b = &low.b[group * output * rank..][..output * rank];
        let a_strides = Strides { row: input * taps, channel: taps, tap: 1 };
        let b_strides = Strides { row: 1, channel: rank, tap: 0 };
        Factors {
            a: blocks(input)
                .map(|(from, depth)| Panels::pack(&a[from * taps..], [rank, depth], &all, a_strides))
                .collect(),
            bt: blocks(output)
                .map(|(from, depth)| Panels::pack(&b[from * rank..], [rank, depth], &[0], b_strides))
                .collect(),
        }
    };
    (0..groups).map(group).collect()
}

/// Blocks of channels as `(first, count)`.
fn blocks(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(CHANNELS).map(move |from| (from, CHANNELS.min(channels - from)))
}

struct Pass<'a> {
    problem: &'a Problem<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    reading: &'a Reading<'a>,
    columns: usize,
    rank: usize,
    factors: &'a [Factors],
}

/// Columns of `dy` as they are.
fn plain() -> Reading<'static> {
    Reading { stride: 1, taps: vec![0], outside: Outside::Zeros }
}

/// Fills the windows of a block of channels.
fn fill_block<'a>(
    window: &mut [f32],
    layout: &Layout,
    reading: &Reading<'_>,
    first: usize,
    channel: impl Fn(usize, usize) -> &'a [f32],
) {
    for (index, row) in window.chunks_exact_mut(layout.row_stride).enumerate() {
        fill(row, layout, reading, first.cast_signed(), |sample| channel(sample, index));
    }
}

struct OfTile<'a> {
    pass: &'a Pass<'a>,
    tile: Tile,
    group: usize,
    da: &'a mut [f32],
    db: &'a mut [f32],
}

impl OfTile<'_> {
    fn run(self) {
        let Self { pass, tile, group, da, db } = self;
        let Channels { groups, input, output } = pass.problem.channels();
        let (taps, length) = (pass.problem.taps(), pass.problem.length);
        let of_x = Layout::new(pass.reading, tile.columns, tile.samples);
        let plain = plain();
        let of_dy = Layout::spaced(&plain, tile.columns, tile.samples, of_x.sample_stride);
        let width = of_x.width();
        // The low-rank signals, with room for whole registers at the end of a row.
        let stride = width.next_multiple_of(LANES);
        let window = CHANNELS.min(input) * of_x.row_stride;
        let window = window.max(CHANNELS.min(output) * of_dy.row_stride);
        scratch::with(window + 2 * pass.rank * stride, |memory| {
            let (window, narrow) = memory.split_at_mut(window);
            narrow.fill(0.0);
            let (h, dh) = narrow.split_at_mut(pass.rank * stride);
            let factors = &pass.factors[group];
            let dy = |from: usize| {
                move |sample: usize, channel: usize| {
                    let row = ((tile.sample + sample) * groups + group) * output + from + channel;
                    &pass.dy[row * pass.columns..][..pass.columns]
                }
            };
            for ((from, depth), bt) in blocks(output).zip(&factors.bt) {
                let window = &mut window[..depth * of_dy.row_stride];
                fill_block(window, &of_dy, &plain, tile.first, dy(from));
                let source = Source { window, row_stride: of_dy.row_stride, taps: &of_dy.taps };
                add_product(bt, source, width, Matrix { data: &mut *dh, row_stride: stride });
            }
            for ((from, depth), a) in blocks(input).zip(&factors.a) {
                let window = &mut window[..depth * of_x.row_stride];
                fill_block(window, &of_x, pass.reading, tile.first, |sample, channel| {
                    let row = ((tile.sample + sample) * groups + group) * input + from + channel;
                    &pass.x[row * length..][..length]
                });
                let source = Source { window, row_stride: of_x.row_stride, taps: &of_x.taps };
                add_product(a, source, width, Matrix { data: &mut *h, row_stride: stride });
                let dh = Rows { data: dh, count: pass.rank, stride };
                for (tap, offset) in of_x.taps.iter().enumerate() {
                    let x = Rows { data: &window[*offset..], count: depth, stride: of_x.row_stride };
                    add_sums(dh, x, width, &mut da[from * taps + tap..], [input * taps, taps]);
                }
            }
            for (from, depth) in blocks(output) {
                let window = &mut window[..depth * of_dy.row_stride];
                fill_block(window, &of_dy, &plain, tile.first, dy(from));
                let dy = Rows { data: window, count: depth, stride: of_dy.row_stride };
                let h = Rows { data: h, count: pass.rank, stride };
                add_sums(h, dy, width, &mut db[from * pass.rank..], [1, pass.rank]);
            }
        });
    }
}

/// The gradient `dW (out, in/groups, kernel)` of a dense weight.
///
/// # Panics
/// When a slice does not have the size of its shape, and where [`Problem::output_length`] is an error.
#[must_use]
pub fn weight_gradient(problem: &Problem<'_>, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let Channels { groups, input, output } = problem.channels();
    let (taps, columns) = (problem.taps(), problem.columns());
    assert_eq!(x.len(), problem.batch * groups * input * problem.length, "values of x");
    assert_eq!(dy.len(), problem.batch * groups * output * columns, "values of dy");
    let reading = reading(problem.geometry);
    let tiles = tiles(problem, &reading, columns);
    let mut dw = vec![0.0; groups * output * input * taps];
    let shared = Shared::new(&mut dw);
    let tasks: Vec<_> = (0..groups)
        .flat_map(|group| {
            blocks(output).flat_map(move |outputs| blocks(input).map(move |inputs| (group, outputs, inputs)))
        })
        .collect();
    tasks.into_par_iter().for_each(|(group, outputs, inputs)| {
        for tile in 0..tiles.count() {
            let tile = tiles.get(tile);
            Dense { problem, x, dy, reading: &reading, columns, tile, group, outputs, inputs, dw: &shared }.run();
        }
    });
    dw
}

struct Dense<'a> {
    problem: &'a Problem<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    reading: &'a Reading<'a>,
    columns: usize,
    tile: Tile,
    group: usize,
    outputs: (usize, usize),
    inputs: (usize, usize),
    dw: &'a Shared<'a>,
}

impl Dense<'_> {
    #[expect(unsafe_code, reason = "tasks write their own channels of one gradient")]
    fn run(self) {
        let Channels { groups, input, output } = self.problem.channels();
        let (taps, length, tile) = (self.problem.taps(), self.problem.length, self.tile);
        let of_x = Layout::new(self.reading, tile.columns, tile.samples);
        let plain = plain();
        let of_dy = Layout::spaced(&plain, tile.columns, tile.samples, of_x.sample_stride);
        let size = self.inputs.1 * of_x.row_stride;
        scratch::with(size + self.outputs.1 * of_dy.row_stride, |memory| {
            let (window, narrow) = memory.split_at_mut(size);
            fill_block(window, &of_x, self.reading, tile.first, |sample, channel| {
                let row = ((tile.sample + sample) * groups + self.group) * input + self.inputs.0 + channel;
                &self.x[row * length..][..length]
            });
            fill_block(narrow, &of_dy, &plain, tile.first, |sample, channel| {
                let row = ((tile.sample + sample) * groups + self.group) * output + self.outputs.0 + channel;
                &self.dy[row * self.columns..][..self.columns]
            });
            let dy = Rows { data: narrow, count: 1, stride: of_dy.row_stride };
            for row in 0..self.outputs.1 {
                let start = ((self.group * output + self.outputs.0 + row) * input + self.inputs.0) * taps;
                // SAFETY: a task has the rows of its outputs and the columns of its inputs to itself.
                let dw = unsafe { self.dw.part(start, self.inputs.1 * taps) };
                let dy = Rows { data: &dy.data[row * dy.stride..], ..dy };
                for (tap, offset) in of_x.taps.iter().enumerate() {
                    let x = Rows { data: &window[*offset..], count: self.inputs.1, stride: of_x.row_stride };
                    add_sums(dy, x, of_x.width(), &mut dw[tap..], [0, taps]);
                }
            }
        });
    }
}

//! The factors as the products read them.

use super::super::Problem;
use super::super::tiles::blocks;
use super::super::weights::{LowRank, Panels, Strides};

/// The factors, packed by blocks of channels.
pub(super) struct Factors {
    /// `A` of every block of the factors, over the inputs, tap by tap or all taps at once.
    pub a: Vec<Vec<Vec<Panels>>>,
    /// `Bᵀ` of every group, over the outputs.
    pub bt: Vec<Vec<Panels>>,
}

impl Factors {
    pub fn new(problem: &Problem<'_>, low: &LowRank<'_>, tap_by_tap: bool) -> Self {
        let (inputs, outputs, taps, n) =
            (problem.inputs().channels, problem.outputs().channels, problem.taps(), problem.row());
        let rank = low.rank / low.blocks;
        let all = (0..taps).collect::<Vec<_>>();
        let at_once = if tap_by_tap { 1 } else { taps.max(1) };
        let of_a = Strides { row: n, channel: taps, tap: 1 };
        let of_b = Strides { row: 1, channel: rank, tap: 0 };
        let pack_a = |a: &[f32]| {
            let of_taps = |from: usize, depth| {
                all.chunks(at_once)
                    .map(|taps_read| Panels::pack(&a[from * taps..], [rank, depth], taps_read, of_a))
                    .collect()
            };
            blocks(inputs).map(|(from, depth)| of_taps(from, depth)).collect()
        };
        let pack_b = |b: &[f32]| {
            blocks(outputs).map(|(from, depth)| Panels::pack(&b[from * rank..], [rank, depth], &[0], of_b)).collect()
        };
        Self {
            a: low.a.chunks_exact(rank * n).map(pack_a).collect(),
            bt: low.b.chunks_exact(outputs * rank).map(pack_b).collect(),
        }
    }
}

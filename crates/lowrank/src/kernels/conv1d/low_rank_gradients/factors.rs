//! The factors as the products read them.

use super::super::Problem;
use super::super::kernel::Kernel;
use super::super::panels::Panels;
use super::super::tiles::blocks;
use super::super::weights::{LowRank, Weight};

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
        let pack_a = |a: &[f32]| {
            let weight = Weight::plain(a);
            let kernel = Kernel::new(&weight, [rank, inputs, taps]);
            let pack = |(from, depth): (usize, usize)| {
                all.chunks(at_once).map(|taps| Panels::pack(&kernel, 0, from..from + depth, taps)).collect()
            };
            blocks(inputs).map(pack).collect()
        };
        let pack_b = |b: &[f32]| {
            let weight = Weight::plain(b);
            let kernel = Kernel::new(&weight, [outputs, rank, 1]).transposed();
            blocks(outputs).map(|(from, depth)| Panels::pack(&kernel, 0, from..from + depth, &[0])).collect()
        };
        Self {
            a: low.a.chunks_exact(rank * n).map(pack_a).collect(),
            bt: low.b.chunks_exact(outputs * rank).map(pack_b).collect(),
        }
    }
}

//! The factors as the products read them.

use super::super::Problem;
use super::super::kernel::Kernel;
use super::super::panels::Panels;
use super::super::tiles::blocks;
use super::super::weights::{LowRank, Weight};

/// The factors, packed by blocks of channels.
pub(super) struct Factors {
    /// `A` of every block of the factors, over the inputs.
    pub a: Vec<Vec<Panels>>,
    /// `Bᵀ` of every group, over the outputs.
    pub bt: Vec<Vec<Panels>>,
}

impl Factors {
    pub fn new(problem: &Problem<'_>, low: &LowRank<'_>) -> Self {
        let (inputs, outputs, taps, n) =
            (problem.inputs().channels, problem.outputs().channels, problem.taps(), problem.row());
        let rank = low.rank / low.blocks;
        let all = (0..taps).collect::<Vec<_>>();
        let pack_a = |a: &[f32]| {
            let weight = Weight::plain(a);
            let kernel = Kernel::new(&weight, [rank, inputs, taps]);
            blocks(inputs).map(|(from, depth)| Panels::pack(&kernel, 0, from..from + depth, &all)).collect()
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

//! Numbers over many layers.

use crate::conv1d::RANK;
use crate::geometry::Geometry;
use crate::peer::{Mode, lowrank};
use crate::record::{Ceilings, Layer, Part};

/// Named figures, summed up.
pub struct Summary {
    /// The geometric mean.
    pub geomean: f64,
    /// The largest.
    pub worst: f64,
    /// Whose it is.
    pub worst_name: String,
    /// How many there are.
    pub count: usize,
}

impl Summary {
    /// Nothing when there is no figure.
    pub fn of<'a>(figures: impl IntoIterator<Item = (&'a str, f64)>) -> Option<Self> {
        let figures: Vec<_> = figures.into_iter().collect();
        let (name, worst) = figures.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let logs: f64 = figures.iter().map(|(_, figure)| figure.ln()).sum();
        #[expect(clippy::cast_precision_loss, reason = "a few layers")]
        let geomean = (logs / figures.len() as f64).exp();
        Some(Self { geomean, worst, worst_name: name.to_owned(), count: figures.len() })
    }

    /// One peer over another in the layers, where both were measured.
    pub fn ratios<'a>(layers: impl IntoIterator<Item = &'a Layer>, peer: &str, over: &str) -> Option<Self> {
        let figure = |layer: &'a Layer| Some((layer.geometry.name.as_str(), layer.ratio(peer, over)?));
        Self::of(layers.into_iter().filter_map(figure))
    }
}

/// The named layers at one rank in one mode.
pub fn layers(part: &Part, rank: usize, mode: Mode) -> impl Iterator<Item = &Layer> + Clone {
    part.layers.iter().filter(move |layer| layer.rank == rank && layer.mode == mode)
}

/// Those at the rank where everyone was measured.
pub fn main(part: &Part, mode: Mode) -> impl Iterator<Item = &Layer> + Clone {
    layers(part, RANK, mode)
}

/// What the adapter costs, over the frozen layer alone.
pub fn overhead(layer: &Layer) -> Option<f64> {
    layer.ratio(lowrank::LORA, lowrank::FROZEN)
}

/// By how much the overhead of one layer differs between its lengths: the largest over the smallest, less 1.
pub fn slope(sweep: &[&Layer]) -> Option<f64> {
    let overheads: Vec<f64> = sweep.iter().filter_map(|layer| overhead(layer)).collect();
    let largest = overheads.iter().copied().max_by(f64::total_cmp)?;
    let smallest = overheads.iter().copied().min_by(f64::total_cmp)?;
    Some(largest / smallest - 1.0)
}

/// The sweeps of a list, each with the layers of one name in one mode.
pub fn sweeps(layers: &[Layer], mode: Mode) -> Vec<Vec<&Layer>> {
    let mut sweeps: Vec<Vec<&Layer>> = Vec::new();
    for layer in layers.iter().filter(|layer| layer.mode == mode) {
        match sweeps.iter_mut().find(|sweep| sweep[0].geometry.name == layer.geometry.name) {
            Some(sweep) => sweep.push(layer),
            None => sweeps.push(vec![layer]),
        }
    }
    sweeps
}

/// How fast a forward is beside what the machine can do.
pub struct Speed {
    /// Arithmetic, in GFLOP/s.
    pub gflops: f64,
    /// That as a share of the matrix product's.
    pub of_gemm: f64,
    /// Bytes that have to be moved, as a share of the bandwidth.
    pub of_bandwidth: f64,
}

impl Speed {
    /// Of a forward that takes `ms`.
    pub fn new(geometry: &Geometry, ms: f64, ceilings: &Ceilings) -> Self {
        let gflops = geometry.flops() / ms / 1e6;
        let of_bandwidth = geometry.bytes() / ms / 1e6 / ceilings.bandwidth();
        Self { gflops, of_gemm: gflops / ceilings.gemm(), of_bandwidth }
    }
}

/// Whether memory is the layer's limit: it has less arithmetic a byte than the machine does in the time of one, or it
/// is depthwise, and so no product of matrices.
pub fn is_memory_bound(geometry: &Geometry, ceilings: &Ceilings) -> bool {
    geometry.is_depthwise() || geometry.intensity() < ceilings.gemm() / ceilings.bandwidth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_figures() {
        let summary = Summary::of([("a", 0.5), ("b", 2.0), ("c", 1.0)]).unwrap();
        assert!((summary.geomean - 1.0).abs() < 1e-12);
        assert_eq!((summary.worst, summary.worst_name.as_str(), summary.count), (2.0, "b", 3));
        assert!(Summary::of([]).is_none());
    }
}

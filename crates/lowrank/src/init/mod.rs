//! How factors start: PEFT's initialisations, one file each.
//!
//! | `init_lora_weights` | `A` | `B` | bias of `B` |
//! |---|---|---|---|
//! | `true` | [Kaiming uniform](kaiming) | 0 | 0 |
//! | `"gaussian"` | [normal], standard deviation `1/r` | 0 | 0 |
//! | `false` | Kaiming uniform | Kaiming uniform | uniform, as `B` |
//! | embedding, all but `false` and `"mica"` | 0 | normal, standard deviation 1 | - |
//! | embedding, `false` | normal, standard deviation 1 | normal, standard deviation 1 | - |
//! | `"orthogonal"` | random, [orthogonal] to `B` | random | - |
//! | `"pissa"`, `"pissa_niter_N"` | [principal part](pissa) of the weight | its other half | - |
//! | `"olora"` | `R` of [`W = Q R`](olora) | `Q` | - |
//! | `"mica"`, embeddings too | 0 | [minor components](mica) of the weight, frozen | - |
//! | `"lora_ga"` | [singular vectors](LoraGa) of the gradient | others of them | - |
//! | `"eva"` | [principal directions](from_inputs) of the inputs | 0 | 0 |
//! | `"corda"` | [part of the weight](from_covariance) that the inputs use most, or least | its other half | - |
//!
//! But for `false`, training starts from the base model: the delta is zero, and where it is not, with `"pissa"`,
//! `"olora"`, `"lora_ga"` and `"corda"`, the adapter's start is taken out of the base. The last three rows read training data
//! (the gradient of the loss, or the [`Moments`] of the layer's inputs), the three before them the weight, which are
//! [`decompose`]'s; the others need random numbers alone, and are [`initialise`]'s. PEFT has the last seven for linear layers (`"mica"` for
//! embeddings too); here convolutions have them as well, group by group, or as the matrix `(out, in/g * k)`.

mod blocks;
mod corda;
mod decompose;
mod eva;
pub mod kaiming;
mod lora_ga;
pub mod mica;
mod moments;
pub mod normal;
pub mod olora;
pub mod orthogonal;
pub mod pissa;

pub use corda::{Corda, from_covariance};
pub use decompose::{Decomposition, decompose};
pub use eva::{Candidate, Eva, from_inputs, ranks};
pub use lora_ga::{Direction, LoraGa, Scaling, from_gradient};
pub use moments::Moments;

use crate::adapter::factors::{check_bias, check_rank, countable};
use crate::adapter::{Factors, GroupMode, Layer, LayerKind};
use crate::random::Random;
use crate::{Error, Result, Subject};

/// `init_lora_weights`: the distributions that need nothing but random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Init {
    /// `true`: `A` as `PyTorch` initialises a layer, `B` zero.
    #[default]
    Default,
    /// `"gaussian"`: `A` normal, `B` zero.
    Gaussian,
    /// `"orthogonal"`: both random, with a product of zero. An embedding starts as with `true`.
    Orthogonal,
    /// `false`: `A` and `B` as `PyTorch` initialises layers. The delta is not zero; it serves tests.
    False,
}

/// Factors for `layer`, drawn from `random` in the order `A`, `B`, bias.
///
/// The fan-in of a factor is the number of values one of its rows has. For a grouped convolution that makes `A` in
/// `dense` form start as PEFT's (`1 / sqrt(in * k)`), and in the compact forms as a grouped layer of its own
/// (`1 / sqrt(in/g * k)`), which has the same effect on the output: a row of the compact `A` sees `g` times fewer inputs.
///
/// ```
/// use lowrank::adapter::{GroupMode, Layer, LayerKind};
/// use lowrank::init::{Init, initialise};
/// use lowrank::random::Random;
///
/// let layer = Layer::new(LayerKind::Conv1d, &[8, 4, 3], 1)?;
/// let mut random = Random::new(42, "conv1", 0);
/// let factors = initialise(&layer, GroupMode::default(), 2, 1.0, false, Init::Default, &mut random)?;
/// assert!(factors.a().iter().all(|a| a.abs() <= 1.0 / 12.0_f32.sqrt()));
/// assert!(factors.delta()?.iter().all(|delta| *delta == 0.0));
/// # Ok::<(), lowrank::Error>(())
/// ```
///
/// # Errors
/// When the rank does not suit the layer and the form ([`Factors::new`]), or is odd where it has to be even; when an
/// embedding is to have a bias; when the factors do not fit the memory.
pub fn initialise(
    layer: &Layer,
    mode: GroupMode,
    rank: usize,
    scale: f32,
    lora_bias: bool,
    init: Init,
    random: &mut Random,
) -> Result<Factors> {
    check_rank(layer, mode, rank)?;
    check_bias(layer, lora_bias)?;
    if init == Init::Orthogonal && layer.kind() != LayerKind::Embedding {
        return orthogonal_blocks(layer, mode, rank, scale, random);
    }
    let mut a = zeros(&layer.a_shape(rank, mode))?;
    let mut b = zeros(&layer.b_shape(rank, mode))?;
    let mut bias = if lora_bias { Some(zeros(&[layer.out_features()])?) } else { None };
    let (a_fan_in, b_fan_in) = (a.len() / rank, b.len() / layer.out_features());
    match (init, layer.kind()) {
        (Init::Default | Init::Gaussian | Init::Orthogonal, LayerKind::Embedding) => normal::fill(&mut b, 1.0, random),
        (Init::False, LayerKind::Embedding) => {
            normal::fill(&mut a, 1.0, random);
            normal::fill(&mut b, 1.0, random);
        }
        (Init::Default | Init::Orthogonal, _) => kaiming::fill(&mut a, a_fan_in, random),
        (Init::Gaussian, _) => normal::fill(&mut a, normal::deviation(rank), random),
        (Init::False, _) => {
            kaiming::fill(&mut a, a_fan_in, random);
            kaiming::fill(&mut b, b_fan_in, random);
            if let Some(bias) = &mut bias {
                kaiming::fill(bias, b_fan_in, random);
            }
        }
    }
    Factors::new(layer.clone(), mode, rank, scale, a, b, bias)
}

/// Each group with rows of `A` of its own is a layer of its own.
fn orthogonal_blocks(layer: &Layer, mode: GroupMode, rank: usize, scale: f32, random: &mut Random) -> Result<Factors> {
    if mode == GroupMode::Dense && layer.groups() > 1 {
        return orthogonal_blocks(layer, GroupMode::PerGroup, rank, scale, random)?.to_dense();
    }
    let blocks = if mode == GroupMode::Shared { 1 } else { layer.groups() };
    if !(rank / blocks).is_multiple_of(2) {
        let groups = if blocks == 1 { String::new() } else { format!(" in each of {blocks} groups") };
        return Err(Error::new(Subject::Adapter, "orthogonal initialisation needs an even rank")
            .found(format!("{}{groups}", rank / blocks))
            .with_hint(format!("use r = {}", rank.saturating_add(blocks))));
    }
    let (inputs, outputs) = (layer.a_shape(1, mode).iter().product(), layer.out_features() / blocks);
    countable(&layer.a_shape(rank, mode))?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..blocks {
        let (block_a, block_b) = orthogonal::factors([inputs, outputs], rank / blocks, random);
        a.extend(block_a);
        b.extend(block_b);
    }
    Factors::new(layer.clone(), mode, rank, scale, a, b, None)
}

fn zeros(shape: &[usize]) -> Result<Vec<f32>> {
    let count = countable(shape)?;
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|reason| {
        Error::new(Subject::Adapter, "a factor does not fit the memory")
            .found(format!("{shape:?}"))
            .with_hint("use a smaller r")
            .because(reason)
    })?;
    values.resize(count, 0.0);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [GroupMode; 3] = [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared];

    fn factors(kind: LayerKind, shape: &[usize], groups: usize, mode: GroupMode, init: Init) -> Factors {
        let layer = Layer::new(kind, shape, groups).unwrap();
        let bias = kind != LayerKind::Embedding;
        initialise(&layer, mode, 8, 1.0, bias, init, &mut Random::new(0, "init", 0)).unwrap()
    }

    /// Largest distance between the distribution of `values` and `cumulative`, times the root of their number:
    /// above 1.63 in one of a hundred samples of the same distribution.
    fn kolmogorov_smirnov(values: &[f32], cumulative: impl Fn(f64) -> f64) -> f64 {
        let mut sorted: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        sorted.sort_by(f64::total_cmp);
        let (mut distance, mut below, step) = (0.0_f64, 0.0, 1.0 / f64::from(u32::try_from(sorted.len()).unwrap()));
        for value in sorted {
            let at = cumulative(value);
            distance = distance.max((at - below).abs()).max((at - below - step).abs());
            below += step;
        }
        distance / step.sqrt()
    }

    fn is_uniform(values: &[f32], bound: f64) -> bool {
        kolmogorov_smirnov(values, |x| ((x + bound) / (2.0 * bound)).clamp(0.0, 1.0)) < 1.63
    }

    /// The logistic approximation of the normal distribution is good to 1.5e-4 here.
    fn is_normal(values: &[f32], deviation: f64) -> bool {
        let cumulative = |x: f64| 1.0 / (1.0 + (-1.5976 * (x / deviation) - 0.070_56 * (x / deviation).powi(3)).exp());
        kolmogorov_smirnov(values, cumulative) < 1.63
    }

    fn all_zero(values: &[f32]) -> bool {
        values.iter().all(|value| value.to_bits() == 0)
    }

    #[test]
    fn default_is_uniform_by_fan_in_and_adds_nothing() {
        for (kind, shape, fan_in) in [
            (LayerKind::Linear, &[20, 1000][..], 1000),
            (LayerKind::Conv1D, &[1000, 20], 1000),
            (LayerKind::Conv1d, &[20, 100, 5], 500),
            (LayerKind::Conv2d, &[20, 100, 3, 3], 900),
            (LayerKind::Conv3d, &[20, 100, 2, 2, 2], 800),
            (LayerKind::ConvTranspose1d, &[100, 20, 5], 500),
        ] {
            let factors = factors(kind, shape, 1, GroupMode::PerGroup, Init::Default);
            assert!(is_uniform(factors.a(), 1.0 / f64::from(fan_in).sqrt()), "{kind}");
            assert!(all_zero(factors.b()) && factors.bias().is_some_and(all_zero), "{kind}");
        }
    }

    #[test]
    fn grouped_forms_have_the_fan_in_of_their_rows() {
        for (mode, fan_in) in MODES.into_iter().zip([1200.0, 300.0, 300.0]) {
            let factors = factors(LayerKind::Conv1d, &[16, 100, 3], 4, mode, Init::Default);
            assert!(is_uniform(factors.a(), 1.0 / f64::sqrt(fan_in)), "{mode}");
        }
    }

    #[test]
    fn gaussian_has_a_deviation_of_one_by_rank() {
        let factors = factors(LayerKind::Conv1d, &[20, 100, 5], 1, GroupMode::PerGroup, Init::Gaussian);
        assert!(is_normal(factors.a(), 1.0 / 8.0) && !is_uniform(factors.a(), 0.4));
        assert!(all_zero(factors.b()));
    }

    #[test]
    fn false_leaves_both_factors_as_layers_start() {
        for (mode, fan_in) in MODES.into_iter().zip([2.0, 2.0, 8.0]) {
            let factors = factors(LayerKind::Conv1d, &[1000, 4, 3], 4, mode, Init::False);
            let bound = 1.0 / f64::sqrt(fan_in);
            assert!(is_uniform(factors.b(), bound) && is_uniform(factors.bias().unwrap(), bound), "{mode}");
            assert!(!all_zero(factors.a()));
        }
    }

    #[test]
    fn embeddings_start_with_a_normal_b() {
        let of = |init| factors(LayerKind::Embedding, &[1000, 500], 1, GroupMode::PerGroup, init);
        for init in [Init::Default, Init::Gaussian, Init::Orthogonal] {
            assert!(all_zero(of(init).a()) && is_normal(of(init).b(), 1.0));
        }
        assert!(is_normal(of(Init::False).a(), 1.0) && is_normal(of(Init::False).b(), 1.0));
    }

    #[test]
    fn orthogonal_factors_add_nothing_to_any_layer() {
        for (kind, shape, groups) in [
            (LayerKind::Linear, &[20, 30][..], 1),
            (LayerKind::Conv1D, &[30, 20], 1),
            (LayerKind::Conv1d, &[20, 6, 5], 4),
            (LayerKind::Conv2d, &[20, 6, 3, 3], 2),
        ] {
            for mode in MODES {
                let layer = Layer::new(kind, shape, groups).unwrap();
                let random = &mut Random::new(0, "init", 0);
                let factors = initialise(&layer, mode, 8, 2.0, false, Init::Orthogonal, random).unwrap();
                assert!(factors.delta().unwrap().iter().all(|delta| delta.abs() < 1e-6), "{kind} {mode}");
                assert!(!all_zero(factors.a()) && !all_zero(factors.b()), "{kind} {mode}");
                assert_eq!(factors.mode(), mode);
            }
        }
        let conv = Layer::new(LayerKind::Conv1d, &[20, 6, 5], 4).unwrap();
        let random = &mut Random::new(0, "init", 0);
        let odd = initialise(&conv, GroupMode::PerGroup, 4, 1.0, false, Init::Orthogonal, random).unwrap_err();
        assert!(odd.to_string().contains("found 1 in each of 4 groups"), "{odd}");
        assert_eq!(odd.hint(), Some("use r = 8"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let conv = Layer::new(LayerKind::Conv1d, &[4, 1, 3], 4).unwrap();
        let embedding = Layer::new(LayerKind::Embedding, &[4, 4], 1).unwrap();
        let start = |layer: &Layer, mode, rank, bias| {
            initialise(layer, mode, rank, 1.0, bias, Init::Default, &mut Random::new(0, "init", 0))
        };
        assert!(start(&conv, GroupMode::PerGroup, 6, false).is_err());
        assert!(start(&conv, GroupMode::Shared, 6, true).is_ok());
        assert!(start(&conv, GroupMode::Shared, 0, false).is_err());
        assert!(start(&conv, GroupMode::Shared, usize::MAX / 64, false).is_err());
        assert!(start(&embedding, GroupMode::PerGroup, 1, true).is_err());
    }
}

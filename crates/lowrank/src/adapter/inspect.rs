//! What an adapter holds, module by module, in numbers: sizes, norms, effective rank, and what is wrong with it.

use faer::{Mat, Side};
use serde::Serialize;

use super::infer::kind_of;
use super::keys;
use super::state_dict::{ModuleTensors, StateDict, check_module};
use super::tensor::Tensor;
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};

/// The numbers of one module's adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleReport {
    /// The path of the module in the base model.
    pub path: String,
    /// The class of the layer, as far as the factors' shapes tell: a linear layer may be either kind.
    pub kind: String,
    /// Groups of a convolution in PEFT's form.
    pub groups: usize,
    /// The stored type of `A`.
    pub dtype: String,
    /// The shape of `A`.
    pub a_shape: Vec<usize>,
    /// The shape of `B`.
    pub b_shape: Vec<usize>,
    /// The rank `r`.
    pub rank: usize,
    /// The module's alpha.
    pub alpha: f64,
    /// What the product is multiplied with.
    pub scale: f32,
    /// Values in all tensors of the module.
    pub parameters: usize,
    /// The Frobenius norm of `A`; `None` with values that are not finite.
    pub norm_a: Option<f64>,
    /// The Frobenius norm of `B`; `None` with values that are not finite.
    pub norm_b: Option<f64>,
    /// The Frobenius norm of the delta, scale included and without the magnitude of `DoRA`; `None` with values that are not finite.
    pub norm_delta: Option<f64>,
    /// How many directions the delta uses: `exp(-sum p ln p)` with `p` the shares of its singular values. It is 1 for a
    /// delta of rank one, `r` when all singular values are equal; `None` when the delta is zero or not finite.
    pub effective_rank: Option<f64>,
    /// Values that are NaN or infinite.
    pub non_finite: usize,
    /// Whether `A` or `B` is zero throughout and there is no magnitude, so that the adapter does nothing.
    pub dead: bool,
}

/// A tensor that the adapter brings along for the base model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavedReport {
    /// The path of the parameter in the base model; of single rows of one, PEFT's name for them.
    pub parameter: String,
    /// The stored type.
    pub dtype: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// Values that are NaN or infinite.
    pub non_finite: usize,
}

/// The numbers of a whole adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterReport {
    /// The adapted modules, by path.
    pub modules: Vec<ModuleReport>,
    /// The tensors of `modules_to_save` and the trained biases, by path.
    pub saved: Vec<SavedReport>,
    /// Values in all tensors.
    pub parameters: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// Looks at every tensor of an adapter; the base model is not needed.
///
/// ```
/// use lowrank::adapter::inspect::inspect;
/// use lowrank::adapter::state_dict::{ModuleTensors, StateDict};
/// use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind};
/// use lowrank::config::LoraConfig;
/// use lowrank::float::FloatType;
///
/// // B A is the identity, and the scale is 3.
/// let layer = Layer::new(LayerKind::Linear, &[2, 2], 1)?;
/// let identity = vec![1.0, 0.0, 0.0, 1.0];
/// let factors = Factors::new(layer, GroupMode::default(), 2, 3.0, identity.clone(), identity, None)?;
/// let mut state = StateDict::default();
/// state.modules.insert("fc".into(), ModuleTensors::from_factors(&factors, FloatType::F32)?);
/// let config = LoraConfig { r: 2, lora_alpha: 6.0, ..LoraConfig::default() };
/// let report = inspect(&config, &state)?;
/// assert_eq!(report.modules[0].norm_delta.map(f64::round), Some((18_f64).sqrt().round()));
/// assert_eq!(report.modules[0].effective_rank.map(f64::round), Some(2.0));
/// # Ok::<(), lowrank::Error>(())
/// ```
///
/// # Errors
/// When the tensors of a module do not belong together or to the configuration, or when a decomposition does not
/// converge.
pub fn inspect(config: &LoraConfig, state: &StateDict) -> Result<AdapterReport> {
    let modules = state.modules.iter().map(|(path, module)| module_report(path, state.owner(path), module, config));
    let rows = state.tokens.iter().map(|(module, tensor)| (keys::tokens(module).replacen(keys::PREFIX, "", 1), tensor));
    let saved = state.saved.iter().map(|(parameter, tensor)| (parameter.clone(), tensor)).chain(rows);
    let saved = saved.map(|(parameter, tensor)| SavedReport {
        parameter,
        dtype: tensor.dtype().to_string(),
        shape: tensor.shape().to_vec(),
        non_finite: tensor.non_finite(),
    });
    let tensors = state.to_tensors();
    Ok(AdapterReport {
        modules: modules.collect::<Result<_>>()?,
        saved: saved.collect(),
        parameters: tensors.values().map(|tensor| count(tensor)).sum(),
        bytes: tensors.values().map(|tensor| tensor.data().len()).sum(),
    })
}

/// `named` is the module by whose name the configuration means `path`.
fn module_report(path: &str, named: &str, module: &ModuleTensors, config: &LoraConfig) -> Result<ModuleReport> {
    check_module(module, named, config)?;
    let (rank, scale) = (module.rank(), config.scaling_for(named)?);
    let columns = module.b.shape().get(1).copied().unwrap_or(rank);
    let groups = rank.checked_div(columns).unwrap_or(1);
    let non_finite = module.parts().map(|(_, tensor)| tensor.non_finite()).sum();
    let values = (module.a.values(), module.b.values());
    let singular = match &values {
        (Some(a), Some(b)) if non_finite == 0 => Some(singular_values(a, b, rank, groups, f64::from(scale))?),
        _ => None,
    };
    let norm_of =
        |values: &Option<Vec<f32>>| values.as_deref().map(|values| norm(values.iter().map(|v| f64::from(*v))));
    let finite = |norm: Option<f64>| norm.filter(|norm| norm.is_finite());
    Ok(ModuleReport {
        path: path.to_owned(),
        kind: kind_of(path, module, config).to_string(),
        groups,
        dtype: module.a.dtype().to_string(),
        a_shape: module.a.shape().to_vec(),
        b_shape: module.b.shape().to_vec(),
        rank,
        alpha: config.alpha_for(named)?,
        scale,
        parameters: module.parts().map(|(_, tensor)| count(tensor)).sum(),
        norm_a: finite(norm_of(&values.0)),
        norm_b: finite(norm_of(&values.1)),
        norm_delta: finite(singular.as_ref().map(|values| norm(values.iter().copied()))),
        effective_rank: singular.as_deref().and_then(effective_rank),
        non_finite,
        dead: module.magnitude.is_none() && (module.a.is_zero() || module.b.is_zero()),
    })
}

fn count(tensor: &Tensor) -> usize {
    tensor.shape().iter().product()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// `exp` of the entropy of the singular values' shares; `None` when all are zero.
fn effective_rank(singular: &[f64]) -> Option<f64> {
    let sum: f64 = singular.iter().sum();
    let shares = singular.iter().map(|value| value / sum).filter(|share| *share > 0.0);
    (sum > 0.0 && sum.is_finite()).then(|| (-shares.map(|share| share * share.ln()).sum::<f64>()).exp())
}

/// The singular values of `scale * B @ A` with the rows of `A` as vectors, from two matrices of `rank` by `rank`:
/// those of `B^T B` and `A A^T`. With `S` the square root of the first, the eigenvalues of `S (A A^T) S` are the squares.
///
/// A grouped `B` is the block-diagonal matrix that it stands for.
fn singular_values(a: &[f32], b: &[f32], rank: usize, groups: usize, scale: f64) -> Result<Vec<f64>> {
    let failed = |_| Error::new(Subject::Adapter, "the singular values do not converge");
    let rows: Vec<&[f32]> = a.chunks(a.len() / rank.max(1)).collect();
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let of_a = Mat::from_fn(rank, rank, |i, j| dot(rows[i], rows[j]));
    let (per_group, block) = (rank / groups, b.len() / groups);
    let of_b = Mat::from_fn(rank, rank, |i, j| {
        if i / per_group != j / per_group {
            return 0.0;
        }
        let outputs = b[i / per_group * block..][..block].chunks_exact(per_group);
        outputs.map(|row| f64::from(row[i % per_group]) * f64::from(row[j % per_group])).sum()
    });
    let eigen = of_b.self_adjoint_eigen(Side::Lower).map_err(failed)?;
    let vectors = eigen.U();
    let roots = eigen.S().column_vector();
    // U sqrt(D) U^T; what rounding makes negative is zero.
    let half = Mat::from_fn(rank, rank, |i, j| vectors[(i, j)] * roots[j].max(0.0).sqrt());
    let root = &half * vectors.transpose();
    let square = &root * of_a * &root;
    let mut squares = square.self_adjoint_eigenvalues(Side::Lower).map_err(failed)?;
    squares.reverse();
    Ok(squares.into_iter().map(|square| scale.abs() * square.max(0.0).sqrt()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Factors, GroupMode, Layer, LayerKind};
    use crate::float::FloatType;
    use crate::random::Random;

    fn factors(kind: LayerKind, shape: &[usize], groups: usize, rank: usize) -> Factors {
        let layer = Layer::new(kind, shape, groups).unwrap();
        let mut random = Random::new(3, "inspect", 0);
        let mut draw = |shape: Vec<usize>| (0..shape.iter().product::<usize>()).map(|_| random.normal()).collect();
        let mode = GroupMode::PerGroup;
        let (a, b) = (draw(layer.a_shape(rank, mode)), draw(layer.b_shape(rank, mode)));
        Factors::new(layer, mode, rank, 2.0, a, b, None).unwrap()
    }

    fn report(factors: &Factors) -> ModuleReport {
        let config = LoraConfig {
            r: factors.rank(),
            lora_alpha: 2.0 * f64::from(u32::try_from(factors.rank()).unwrap()),
            ..LoraConfig::default()
        };
        let mut state = StateDict::default();
        state.modules.insert("m".into(), ModuleTensors::from_factors(factors, FloatType::F32).unwrap());
        inspect(&config, &state).unwrap().modules.remove(0)
    }

    #[test]
    fn singular_values_are_those_of_the_delta() {
        for (kind, shape, groups) in [
            (LayerKind::Linear, &[7, 9][..], 1),
            (LayerKind::Embedding, &[11, 6], 1),
            (LayerKind::Conv1d, &[12, 4, 5], 1),
            (LayerKind::Conv1d, &[12, 4, 5], 2),
            (LayerKind::Conv2d, &[8, 1, 3, 3], 4),
        ] {
            let factors = factors(kind, shape, groups, 4);
            let delta = factors.delta().unwrap();
            let report = report(&factors);
            let expected = norm(delta.iter().map(|v| f64::from(*v)));
            assert!(
                (report.norm_delta.unwrap() / expected - 1.0).abs() < 1e-5,
                "{kind} {groups}: {report:?} {expected}"
            );
            assert_eq!(report.groups, groups);
            if groups == 1 {
                let columns = delta.len() / shape[0];
                let matrix = Mat::from_fn(shape[0], columns, |i, j| f64::from(delta[i * columns + j]));
                let direct: Vec<f64> = matrix.singular_values().unwrap().into_iter().take(4).collect();
                let rank = effective_rank(&direct).unwrap();
                assert!((report.effective_rank.unwrap() - rank).abs() < 1e-4, "{kind}: {report:?} {rank}");
            }
        }
    }

    #[test]
    fn effective_rank_runs_from_one_to_all() {
        assert_eq!(effective_rank(&[0.0, 0.0]), None);
        assert!((effective_rank(&[3.0, 0.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((effective_rank(&[2.0; 5]).unwrap() - 5.0).abs() < 1e-12);
    }

    #[test]
    fn dead_and_broken_modules_are_seen() {
        let whole = factors(LayerKind::Linear, &[7, 9], 1, 3);
        let with = |a: &[f32], b: &[f32]| {
            let (layer, mode) = (whole.layer().clone(), whole.mode());
            report(&Factors::new(layer, mode, 3, 2.0, a.to_vec(), b.to_vec(), None).unwrap())
        };
        let fine = with(whole.a(), whole.b());
        assert!(!fine.dead && fine.non_finite == 0 && fine.parameters == 3 * (7 + 9));
        let dead = with(whole.a(), &[0.0; 21]);
        assert!(dead.dead && dead.norm_delta == Some(0.0) && dead.effective_rank.is_none());
        let mut a = whole.a().to_vec();
        (a[4], a[5]) = (f32::NAN, f32::INFINITY);
        let broken = with(&a, whole.b());
        assert_eq!((broken.non_finite, broken.norm_a, broken.norm_delta, broken.effective_rank), (2, None, None, None));
        assert!(broken.norm_b.is_some() && !broken.dead);
    }
}

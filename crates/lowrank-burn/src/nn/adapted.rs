//! The parameters of a layer as some samples see them, and a batch in which not all see the same.

use burn::module::Param;
use burn::tensor::{Int, Tensor, TensorData, kind};
use lowrank::{Error, Subject};

use crate::adapter::{Change, LoraAdapter, LowRank, Rows, Who};

/// A parameter, and whose changes it is read with.
pub(super) struct Adapted<'a, const D: usize> {
    param: &'a Param<Tensor<D>>,
    adapter: Option<&'a LoraAdapter>,
    who: Who<'a>,
}

impl<'a, const D: usize> Adapted<'a, D> {
    fn new(param: &'a Param<Tensor<D>>, who: Who<'a>) -> Self {
        Self { param, adapter: param.reparameterization(), who }
    }

    /// The value with all changes in it.
    pub fn val(&self) -> Tensor<D> {
        match self.adapter {
            Some(adapter) => adapter.value(self.param.base(), self.who),
            None => self.param.base(),
        }
    }

    /// Whether there are changes.
    pub fn changes(&self) -> bool {
        self.adapter.is_some_and(|adapter| !adapter.seen_by(self.who).is_empty())
    }

    /// What the changes are made to.
    pub fn base(&self) -> Tensor<D> {
        self.param.base()
    }

    /// The same without anything merged into it.
    pub fn original(&self) -> Tensor<D> {
        let base = self.param.base();
        self.adapter.map_or_else(|| base.clone(), |adapter| adapter.original(&base))
    }

    /// The changes, when the fused operation can serve them all: the base is frozen, nothing replaces it, and those that
    /// fold into the weight have the same blocks.
    pub fn low_rank(&self) -> Option<Vec<(&'a LowRank, f32)>> {
        let changes = self.adapter?.seen_by(self.who);
        if changes.is_empty() || self.param.base().is_require_grad() {
            return None;
        }
        let paths: Vec<_> = changes
            .into_iter()
            .map(|(change, multiplier)| match change {
                Change::LowRank(low_rank) => Some((low_rank, multiplier)),
                Change::Replace(_) | Change::Rows(_) | Change::Shift(_) => None,
            })
            .collect::<Option<_>>()?;
        let mut blocks = paths.iter().filter(|(path, _)| path.fits_weight()).map(|(path, _)| path.blocks());
        let first = blocks.next();
        blocks.all(|other| Some(other) == first).then_some(paths)
    }

    /// The rows, when rows are all that changes: they are looked up on their own, so that the gradient is not that of the
    /// whole table.
    pub fn rows(&self) -> Option<Vec<&'a Rows>> {
        let changes = self.adapter?.seen_by(self.who);
        if changes.is_empty() || self.param.base().is_require_grad() {
            return None;
        }
        let rows = changes.into_iter().map(|(change, _)| match change {
            Change::Rows(rows) => Some(rows),
            Change::LowRank(_) | Change::Replace(_) | Change::Shift(_) => None,
        });
        rows.collect()
    }
}

/// The layer `compute` with the active adapters; in a mixed batch, with each sample's own.
///
/// The first axis of `x` are the samples. A mixed batch goes through `at_once` where that can take it, which is given what
/// the samples see and for each sample which of that; else those of one adapter go through `compute` together, wherever
/// they stand: each weight is folded once. Samples in the order of their adapters then cost one copy of the output, others
/// also one of the input and another of the output.
pub(super) fn by_sample<const X: usize, const Y: usize, const D: usize, K: kind::Basic>(
    x: Tensor<X, K>,
    weight: &Param<Tensor<D>>,
    bias: Option<&Param<Tensor<1>>>,
    at_once: impl Fn(&Tensor<X, K>, &[Seen<'_, D>], &[usize]) -> Option<Tensor<Y>>,
    compute: impl Fn(Tensor<X, K>, &Adapted<'_, D>, Option<Tensor<1>>) -> Tensor<Y>,
) -> Tensor<Y> {
    let seen_by = |who| -> Seen<'_, D> { (Adapted::new(weight, who), bias.map(|bias| Adapted::new(bias, who).val())) };
    let alike = |x, who| {
        let (weight, bias) = seen_by(who);
        compute(x, &weight, bias)
    };
    let adapters = [weight.reparameterization(), bias.and_then(Param::reparameterization)];
    let adapters: Vec<&LoraAdapter> = adapters.into_iter().flatten().collect();
    let Some(mixed) = adapters.first().and_then(|adapter| adapter.mixed()) else { return alike(x, Who::Active) };
    let shares = mixed.shares(|name| adapters.iter().any(|adapter| adapter.has(name)));
    if shares.iter().all(|share| share.name.is_none()) {
        return alike(x, Who::Only(None));
    }
    let shape = x.dims();
    if X < 2 || shape[0] != mixed.len() {
        adapters[0].refuse(wrong_length(&shape, mixed.len()));
        return alike(x, Who::Only(None));
    }
    if let [share] = shares.as_slice() {
        return alike(x, Who::Only(share.name));
    }
    let seen: Vec<_> = shares.iter().map(|share| seen_by(Who::Only(share.name))).collect();
    let mut which = vec![0; shape[0]];
    for (at, share) in shares.iter().enumerate() {
        share.samples.iter().for_each(|sample| which[*sample] = at);
    }
    if let Some(y) = at_once(&x, &seen, &which) {
        return y;
    }
    let order: Vec<usize> = shares.iter().flat_map(|share| share.samples.iter().copied()).collect();
    let sorted = order.is_sorted();
    let x = if sorted { x } else { rows(x, &order) };
    let mut first = 0;
    let parts = shares.iter().zip(seen).map(|(share, (weight, bias))| {
        let count = share.samples.len();
        first += count;
        compute(x.clone().narrow(0, first - count, count), &weight, bias)
    });
    let y = Tensor::cat(parts.collect(), 0);
    if sorted { y } else { rows(y, &inverse(&order)) }
}

/// A weight as some samples see it, and their bias.
pub(super) type Seen<'a, const D: usize> = (Adapted<'a, D>, Option<Tensor<1>>);

/// Layers that have no way to take a mixed batch at once.
pub(super) fn never<const X: usize, const Y: usize, const D: usize, K: kind::Basic>(
    _: &Tensor<X, K>,
    _: &[Seen<'_, D>],
    _: &[usize],
) -> Option<Tensor<Y>> {
    None
}

/// The samples at these places.
fn rows<const D: usize, K: kind::Basic>(x: Tensor<D, K>, places: &[usize]) -> Tensor<D, K> {
    let (shape, device) = (x.dims(), x.device());
    let places: Vec<i64> = places.iter().map(|place| i64::try_from(*place).unwrap_or(i64::MAX)).collect();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [shape[0]]), &device);
    // As a matrix, whose rows are copied whole.
    let matrix: Tensor<2, K> = x.reshape([shape[0], shape[1..].iter().product()]);
    matrix.select(0, places).reshape(shape)
}

/// Where each place has gone.
fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, place)| inverse[*place] = at);
    inverse
}

fn wrong_length(shape: &[usize], samples: usize) -> Error {
    Error::new(Subject::Adapter, "the first axis of what this layer reads is not that of the samples")
        .found(format!("{shape:?}"))
        .expected(format!("{samples} first, an adapter for each"))
        .with_hint(
            "name an adapter, or `__base__`, for every sample; a model that folds samples together cannot be mixed",
        )
}

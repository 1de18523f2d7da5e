//! The rank at which a decomposition is cut, and the configuration that says so.

use std::collections::BTreeMap;

use super::keys::attention_of;
use crate::config::LoraConfig;
use crate::svd::Svd;
use crate::{Error, Result, Subject};

/// How much of a delta is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// What this rank holds. With groups it is rounded up to a multiple of them.
    Rank(usize),
    /// The smallest rank whose singular values have this share of the sum of all squares: above 0, at most 1.
    Energy(f64),
}

impl Cut {
    /// Checks the number.
    ///
    /// # Errors
    /// When the rank is 0, and when the share is not above 0 and at most 1.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Rank(0) => Err(Error::new(Subject::Config, "the rank must be positive").found(0)),
            Self::Energy(share) if !(share > 0.0 && share <= 1.0) => {
                Err(Error::new(Subject::Config, "the energy is a share of the whole")
                    .found(share)
                    .expected("a number above 0 and at most 1")
                    .with_hint("0.95 keeps 95 % of the sum of the squared singular values"))
            }
            _ => Ok(()),
        }
    }

    /// The rank of one group, given the decompositions of all; at least 1.
    pub(crate) fn of_group(self, svds: &[Svd]) -> usize {
        match self {
            Self::Rank(rank) => rank.div_ceil(svds.len().max(1)),
            Self::Energy(share) => {
                let most = svds.first().map_or(1, |svd| svd.singular_values().len());
                // What rounding leaves of a zero is no energy.
                let most_lost = (1.0 - share).max(f64::EPSILON);
                (1..most).find(|rank| lost(svds, *rank) <= most_lost).unwrap_or(most)
            }
        }
    }
}

/// The share of the energy that a cut at `rank` loses: the sum of the squares of the singular values that are left out,
/// by that of all; 0 for zeros.
pub(crate) fn lost(svds: &[Svd], rank: usize) -> f64 {
    let squares = |from: usize| {
        let values = svds.iter().flat_map(|svd| svd.singular_values().iter().skip(from));
        values.map(|value| value * value).sum::<f64>()
    };
    let all = squares(0);
    if all > 0.0 { squares(rank) / all } else { 0.0 }
}

/// Puts the rank and the alpha of each module into `config`: the most frequent ones as `r` and `lora_alpha`, the others in
/// `rank_pattern` and `alpha_pattern` by whole path. The output projection of an attention has those of the attention.
pub(crate) fn set_ranks(config: &mut LoraConfig, modules: &[(&str, usize, f64)]) {
    let of_another = |path| attention_of(path).is_some_and(|owner| modules.iter().any(|(path, ..)| *path == owner));
    let modules: Vec<_> = modules.iter().filter(|(path, ..)| !of_another(path)).collect();
    let key = |path: &str| format!("^{}", regex::escape(path));
    config.r = most_frequent(modules.iter().map(|(_, rank, _)| *rank)).unwrap_or(config.r);
    let alpha = most_frequent(modules.iter().map(|(_, _, alpha)| alpha.to_bits()));
    config.lora_alpha = alpha.map_or(config.lora_alpha, f64::from_bits);
    let ranks = modules.iter().filter(|(_, rank, _)| *rank != config.r);
    config.rank_pattern = ranks.map(|(path, rank, _)| (key(path), *rank)).collect();
    let alphas = modules.iter().filter(|(_, _, alpha)| alpha.to_bits() != config.lora_alpha.to_bits());
    config.alpha_pattern = alphas.map(|(path, _, alpha)| (key(path), *alpha)).collect();
}

/// Of several that are equally frequent, the largest.
fn most_frequent<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::<T, usize>::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

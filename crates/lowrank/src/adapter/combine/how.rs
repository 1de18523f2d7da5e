//! How adapters are combined: PEFT's names, and which setting belongs to which.

use std::fmt;

use crate::{Error, Result, Subject};

/// PEFT's `combination_type`; see [the module](super) for what each computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CombinationType {
    /// The weighted sum of the deltas, cut to a rank.
    #[default]
    Svd,
    /// The weighted sum of the factors, `A` and `B` each for itself.
    Linear,
    /// The factors one behind the other: the weighted sum of the deltas, exactly.
    Cat,
    /// The factors' large values, where they agree in sign.
    Ties,
    /// The deltas' large values, where they agree in sign, cut to a rank.
    TiesSvd,
    /// The factors' values, some dropped at random.
    DareLinear,
    /// The factors' values, some dropped at random, where they agree in sign.
    DareTies,
    /// The deltas' values, some dropped at random, cut to a rank.
    DareLinearSvd,
    /// The deltas' values, some dropped at random, where they agree in sign, cut to a rank.
    DareTiesSvd,
    /// The factors' large values.
    MagnitudePrune,
    /// The deltas' large values, cut to a rank.
    MagnitudePruneSvd,
}

/// What is taken out of each adapter before they are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pruning {
    /// Nothing.
    None,
    /// All but the largest magnitudes.
    Magnitude,
    /// Values at random; the others grow so that the mean stays.
    Random,
}

impl CombinationType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Svd,
        Self::Linear,
        Self::Cat,
        Self::Ties,
        Self::TiesSvd,
        Self::DareLinear,
        Self::DareTies,
        Self::DareLinearSvd,
        Self::DareTiesSvd,
        Self::MagnitudePrune,
        Self::MagnitudePruneSvd,
    ];

    /// PEFT's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Svd => "svd",
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Ties => "ties",
            Self::TiesSvd => "ties_svd",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
            Self::DareLinearSvd => "dare_linear_svd",
            Self::DareTiesSvd => "dare_ties_svd",
            Self::MagnitudePrune => "magnitude_prune",
            Self::MagnitudePruneSvd => "magnitude_prune_svd",
        }
    }

    /// Whether the deltas are combined, and the result decomposed; else it is the factors.
    #[must_use]
    pub fn is_svd(self) -> bool {
        matches!(self, Self::Svd | Self::TiesSvd | Self::DareLinearSvd | Self::DareTiesSvd | Self::MagnitudePruneSvd)
    }

    pub(super) fn pruning(self) -> Pruning {
        match self {
            Self::Svd | Self::Linear | Self::Cat => Pruning::None,
            Self::Ties | Self::TiesSvd | Self::MagnitudePrune | Self::MagnitudePruneSvd => Pruning::Magnitude,
            Self::DareLinear | Self::DareTies | Self::DareLinearSvd | Self::DareTiesSvd => Pruning::Random,
        }
    }

    pub(super) fn elects_sign(self) -> bool {
        matches!(self, Self::Ties | Self::TiesSvd | Self::DareTies | Self::DareTiesSvd)
    }
}

impl fmt::Display for CombinationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which sign wins where adapters disagree: PEFT's `majority_sign_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MajoritySign {
    /// That of the sum of the values; positive when it is 0.
    #[default]
    Total,
    /// That of most values; positive when there are as many of each.
    Frequency,
}

impl MajoritySign {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Total, Self::Frequency];

    /// PEFT's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Frequency => "frequency",
        }
    }
}

/// The settings of a combination. One that does not belong to the type is an error, not ignored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Combination {
    /// What is computed.
    pub combination_type: CombinationType,
    /// The rank of the result, for the types with a decomposition; without, the largest of the adapters' ranks, module by
    /// module.
    pub svd_rank: Option<usize>,
    /// The share of values that is kept, in `(0, 1]`: needed by the types that prune.
    pub density: Option<f64>,
    /// Which sign wins, for the types that elect one; without, [`MajoritySign::Total`].
    pub majority_sign_method: Option<MajoritySign>,
    /// The seed of what is dropped at random, for the `dare` types; without, 0.
    pub seed: Option<u64>,
}

impl Combination {
    /// `combination_type` with nothing else set.
    #[must_use]
    pub fn new(combination_type: CombinationType) -> Self {
        Self { combination_type, ..Self::default() }
    }

    /// Checks that the settings are in range, and belong to the type.
    ///
    /// # Errors
    /// When one is not.
    pub fn check(&self) -> Result<()> {
        let kind = self.combination_type;
        let prunes = kind.pruning() != Pruning::None;
        for (name, set, belongs, to) in [
            ("svd_rank", self.svd_rank.is_some(), kind.is_svd(), "the types that end in svd"),
            ("density", self.density.is_some(), prunes, "ties, dare and magnitude_prune"),
            ("majority_sign_method", self.majority_sign_method.is_some(), kind.elects_sign(), "ties and dare_ties"),
            ("seed", self.seed.is_some(), kind.pruning() == Pruning::Random, "the dare types"),
        ] {
            if set && !belongs {
                return Err(wrong(format!("{name} has no effect on {kind}"))
                    .with_hint(format!("leave it out: it belongs to {to}")));
            }
        }
        if prunes && self.density.is_none() {
            return Err(wrong(format!("{kind} needs a density"))
                .expected("the share of values to keep, above 0 and at most 1")
                .with_hint("0.2 is usual for ties and magnitude_prune, 0.5 for dare"));
        }
        if let Some(density) = self.density.filter(|density| !(*density > 0.0 && *density <= 1.0)) {
            return Err(wrong("density out of range".into())
                .found(density)
                .expected("above 0 and at most 1")
                .with_hint("density is the share of values to keep: 1 keeps all"));
        }
        if self.svd_rank == Some(0) {
            return Err(wrong("svd_rank must be positive".into()).found(0));
        }
        Ok(())
    }
}

fn wrong(problem: String) -> Error {
    Error::new(Subject::Config, problem)
}

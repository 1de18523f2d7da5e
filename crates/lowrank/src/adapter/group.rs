//! The three forms of an adapter on a grouped convolution.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the factors of a grouped convolution share its groups. With one group the three are the same.
///
/// | form | `A` | `B` | rank |
/// |---|---|---|---|
/// | `dense` | `(r, in, k..)` | `(out, r/g, 1..)` | a multiple of `g` |
/// | `per_group` | `(r, in/g, k..)` | `(out, r/g, 1..)` | a multiple of `g` |
/// | `shared` | `(r, in/g, k..)` | `(out, r, 1..)` | any |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupMode {
    /// PEFT's form: `A` sees every input channel, `B` is grouped. Its delta fits the grouped weight only where `A` is
    /// zero outside the group of each of its rows.
    Dense,
    /// Each group has `r/g` rows of `A` of its own, over its own inputs: `dense` without the entries that do not fit.
    #[default]
    PerGroup,
    /// Low rank on the grouped weight seen as the matrix `(out, in/g * k)`: all groups share the rows of `A`.
    Shared,
}

impl GroupMode {
    /// The name configurations use: `dense`, `per_group`, `shared`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::PerGroup => "per_group",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for GroupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

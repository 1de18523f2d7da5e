//! Which taps share what they load.

use pulp::{Simd, WithSimd};

use super::super::super::lanes::arch;

/// Taps in the order in which they are used: each is an index into the weights and an offset into the window.
pub(super) struct Taps {
    /// Of which the second reads a register behind the first.
    pub pairs: Vec<Pair>,
    pub singles: Vec<Single>,
}

pub(super) struct Pair {
    pub at: usize,
    pub taps: [usize; 2],
}

pub(super) struct Single {
    pub at: usize,
    pub tap: usize,
}

impl Taps {
    /// Of `(tap, offset)`.
    pub fn new(taps: impl Iterator<Item = (usize, usize)>) -> Self {
        let register = arch().dispatch(Register);
        let mut open: Vec<Single> = taps.map(|(tap, at)| Single { at, tap }).collect();
        open.sort_by_key(|single| single.at);
        let (mut pairs, mut singles, mut taken) = (Vec::new(), Vec::new(), vec![false; open.len()]);
        for index in 0..open.len() {
            if taken[index] {
                continue;
            }
            let Single { at, tap } = open[index];
            let second = open.partition_point(|single| single.at < at + register);
            match open.get(second) {
                Some(other) if other.at == at + register && !taken[second] => {
                    taken[second] = true;
                    pairs.push(Pair { at, taps: [tap, other.tap] });
                }
                _ => singles.push(Single { at, tap }),
            }
        }
        Self { pairs, singles }
    }
}

struct Register;

impl WithSimd for Register {
    type Output = usize;

    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

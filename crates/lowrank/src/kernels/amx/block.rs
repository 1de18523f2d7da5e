//! The block of arithmetic: four tiles of sums, two of each factor.

#![expect(unsafe_code, reason = "instructions that the language does not have")]

use std::arch::asm;

use super::{BLOCK, PANEL, Unit};

/// A sum for each row of a panel of the left factor and each column of one of the right.
#[repr(align(64))]
#[derive(Default)]
pub struct Sums(pub [[f32; PANEL]; PANEL]);

/// `sums = left · right`, of two panels.
///
/// A step loads two tiles for four multiplications. The small products come first.
///
/// # Panics
/// When the panels do not hold the same number of blocks.
pub fn multiply(_unit: &Unit, left: &[u16], right: &[u16], sums: &mut Sums) {
    assert!(left.len() == right.len() && left.len().is_multiple_of(BLOCK), "panels of one depth");
    let blocks = left.len() / BLOCK;
    if blocks == 0 {
        sums.0.as_flattened_mut().fill(0.0);
        return;
    }
    macro_rules! products {
        () => {
            "tdpbf16ps tmm0, tmm4, tmm6
             tdpbf16ps tmm1, tmm4, tmm7
             tdpbf16ps tmm2, tmm5, tmm6
             tdpbf16ps tmm3, tmm5, tmm7"
        };
    }
    // SAFETY: the unit is set up for tiles of 1024 bytes; every block has six of them, in both panels, and `sums` has four.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            // The third part of the left factor, the first of the right.
            "tileloadd tmm4, [{left} + {row}*1 + 4096]",
            "tileloadd tmm5, [{left} + {row}*1 + 5120]",
            "tileloadd tmm6, [{right} + {row}*1]",
            "tileloadd tmm7, [{right} + {row}*1 + 1024]",
            products!(),
            // The second, the first.
            "tileloadd tmm4, [{left} + {row}*1 + 2048]",
            "tileloadd tmm5, [{left} + {row}*1 + 3072]",
            products!(),
            // The second, the second.
            "tileloadd tmm6, [{right} + {row}*1 + 2048]",
            "tileloadd tmm7, [{right} + {row}*1 + 3072]",
            products!(),
            // The first, the second.
            "tileloadd tmm4, [{left} + {row}*1]",
            "tileloadd tmm5, [{left} + {row}*1 + 1024]",
            products!(),
            // The first, the third.
            "tileloadd tmm6, [{right} + {row}*1 + 4096]",
            "tileloadd tmm7, [{right} + {row}*1 + 5120]",
            products!(),
            // The first, the first.
            "tileloadd tmm6, [{right} + {row}*1]",
            "tileloadd tmm7, [{right} + {row}*1 + 1024]",
            products!(),
            "add {left}, 6144",
            "add {right}, 6144",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 64], tmm1",
            "tilestored [{sums} + {line}*1 + 2048], tmm2",
            "tilestored [{sums} + {line}*1 + 2112], tmm3",
            left = inout(reg) left.as_ptr() => _,
            right = inout(reg) right.as_ptr() => _,
            blocks = inout(reg) blocks => _,
            sums = in(reg) sums.0.as_mut_ptr(),
            row = in(reg) 64_usize,
            line = in(reg) 128_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

//! The element-wise part of an LSTM cell (Hochreiter and Schmidhuber, 1997; with a forget gate, Gers et al., 2000).
//!
//! Gates are `PyTorch`'s, in its order: input `i`, forget `f`, cell `g`, output `o`, `hidden` values each, side by side in a
//! row of `4·hidden`.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]
#![expect(clippy::many_single_char_names, reason = "the names of the equations")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::lanes::{Lanes, arch};
use super::math::{sigmoid, tanh};

/// Values of the cell state a core takes at a time: enough to be worth the hand-over.
const CHUNK: usize = 1 << 12;

/// One step of a cell over a batch of rows.
#[derive(Debug)]
pub struct LstmForward<'a> {
    /// What the input adds to the gates, biases included: `[rows, 4·hidden]`.
    pub input: &'a [f32],
    /// On entry what the hidden state adds to the gates, on return their activations: `[rows, 4·hidden]`.
    pub gates: &'a mut [f32],
    /// The cell state before: `[rows, hidden]`.
    pub before: &'a [f32],
    /// The cell state after, written: `[rows, hidden]`.
    pub cell: &'a mut [f32],
    /// The hidden state after, written: `[rows, hidden]`.
    pub output: &'a mut [f32],
}

impl LstmForward<'_> {
    /// `i, f, o = σ(·)` and `g = tanh(·)` of the two summands; `cell = f·before + i·g`; `output = o·tanh(cell)`; on all cores.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn run(self, hidden: usize) {
        let Self { input, gates, before, cell, output } = self;
        check(hidden, [input.len(), gates.len()], [before.len(), cell.len(), output.len()]);
        let size = values_of_chunk(hidden);
        let states = before.par_chunks(size).zip(cell.par_chunks_mut(size)).zip(output.par_chunks_mut(size));
        let gates = input.par_chunks(4 * size).zip(gates.par_chunks_mut(4 * size));
        gates.zip(states).for_each(|((input, gates), ((before, cell), output))| {
            arch().dispatch(Forward(LstmForward { input, gates, before, cell, output }, hidden));
        });
    }
}

/// The way back through one step of a cell.
#[derive(Debug)]
pub struct LstmBackward<'a> {
    /// The gates' activations: `[rows, 4·hidden]`.
    pub gates: &'a [f32],
    /// The cell state before: `[rows, hidden]`.
    pub before: &'a [f32],
    /// The cell state after: `[rows, hidden]`.
    pub cell: &'a [f32],
    /// The gradient of the hidden state after: `[rows, hidden]`.
    pub doutput: &'a [f32],
    /// On entry the gradient of the cell state after, on return of that before: `[rows, hidden]`.
    pub dcell: &'a mut [f32],
    /// The gradient of the gates before their activations, written: `[rows, 4·hidden]`.
    pub dgates: &'a mut [f32],
}

impl LstmBackward<'_> {
    /// With `t = tanh(cell)` and `d = dcell + doutput·o·(1 - t²)`: `di = d·g·i·(1 - i)`, `df = d·before·f·(1 - f)`,
    /// `dg = d·i·(1 - g²)`, `do = doutput·t·o·(1 - o)`, `dbefore = d·f`; on all cores.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn run(self, hidden: usize) {
        let Self { gates, before, cell, doutput, dcell, dgates } = self;
        let states = [before.len(), cell.len(), doutput.len(), dcell.len()];
        check(hidden, [gates.len(), dgates.len()], states);
        let size = values_of_chunk(hidden);
        let states = before.par_chunks(size).zip(cell.par_chunks(size));
        let gradients = doutput.par_chunks(size).zip(dcell.par_chunks_mut(size));
        let gates = gates.par_chunks(4 * size).zip(dgates.par_chunks_mut(4 * size));
        gates.zip(states.zip(gradients)).for_each(|((gates, dgates), ((before, cell), (doutput, dcell)))| {
            arch().dispatch(Backward(LstmBackward { gates, before, cell, doutput, dcell, dgates }, hidden));
        });
    }
}

fn check<const N: usize>(hidden: usize, gates: [usize; 2], states: [usize; N]) {
    assert!(hidden > 0, "a cell without values");
    assert_eq!(states[0] % hidden, 0, "whole rows");
    assert!(states.iter().all(|&len| len == states[0]), "states of one size");
    assert!(gates.iter().all(|&len| len == 4 * states[0]), "four gates for each value");
}

/// As many values as a chunk has, in whole rows.
fn values_of_chunk(hidden: usize) -> usize {
    CHUNK.div_ceil(hidden) * hidden
}

/// For each register of each row: its place among the states, and those of its four gates.
#[inline(always)]
fn places<S: Simd>(len: usize, hidden: usize, mut f: impl FnMut(Range<usize>, [Range<usize>; 4])) {
    for row in (0..len).step_by(hidden) {
        for begin in (0..hidden).step_by(S::F32_LANES) {
            let end = (begin + S::F32_LANES).min(hidden);
            let gate = |gate: usize| 4 * row + gate * hidden + begin..4 * row + gate * hidden + end;
            f(row + begin..row + end, [gate(0), gate(1), gate(2), gate(3)]);
        }
    }
}

struct Forward<'a>(LstmForward<'a>, usize);

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(LstmForward { input, gates, before, cell, output }, hidden) = self;
        places::<S>(
            cell.len(),
            hidden,
            #[inline(always)]
            |at, [i_at, f_at, g_at, o_at]| {
                let i = sigmoid(Lanes::load(simd, &input[i_at.clone()]) + Lanes::load(simd, &gates[i_at.clone()]));
                let f = sigmoid(Lanes::load(simd, &input[f_at.clone()]) + Lanes::load(simd, &gates[f_at.clone()]));
                let g = tanh(Lanes::load(simd, &input[g_at.clone()]) + Lanes::load(simd, &gates[g_at.clone()]));
                let o = sigmoid(Lanes::load(simd, &input[o_at.clone()]) + Lanes::load(simd, &gates[o_at.clone()]));
                let c = f.mul_add(Lanes::load(simd, &before[at.clone()]), i * g);
                i.store(&mut gates[i_at]);
                f.store(&mut gates[f_at]);
                g.store(&mut gates[g_at]);
                o.store(&mut gates[o_at]);
                c.store(&mut cell[at.clone()]);
                (o * tanh(c)).store(&mut output[at]);
            },
        );
    }
}

struct Backward<'a>(LstmBackward<'a>, usize);

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(LstmBackward { gates, before, cell, doutput, dcell, dgates }, hidden) = self;
        places::<S>(
            cell.len(),
            hidden,
            #[inline(always)]
            |at, [i_at, f_at, g_at, o_at]| {
                let (i, f) = (Lanes::load(simd, &gates[i_at.clone()]), Lanes::load(simd, &gates[f_at.clone()]));
                let (g, o) = (Lanes::load(simd, &gates[g_at.clone()]), Lanes::load(simd, &gates[o_at.clone()]));
                let (t, dh) = (tanh(Lanes::load(simd, &cell[at.clone()])), Lanes::load(simd, &doutput[at.clone()]));
                let d = (dh * o).mul_add((t * t).one_minus(), Lanes::load(simd, &dcell[at.clone()]));
                (d * g * i * i.one_minus()).store(&mut dgates[i_at]);
                (d * Lanes::load(simd, &before[at.clone()]) * f * f.one_minus()).store(&mut dgates[f_at]);
                (d * i * (g * g).one_minus()).store(&mut dgates[g_at]);
                (dh * t * o * o.one_minus()).store(&mut dgates[o_at]);
                (d * f).store(&mut dcell[at]);
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    use super::*;
    use crate::kernels::reference;
    use crate::kernels::testing::{assert_close, assert_threads_do_not_matter, draw, on_every_set, wide};

    struct Inputs {
        hidden: usize,
        input: Vec<f32>,
        recurrent: Vec<f32>,
        before: Vec<f32>,
        doutput: Vec<f32>,
        dcell: Vec<f32>,
    }

    /// `[cell, output, dgates, dbefore]`.
    type Results = [Vec<f32>; 4];

    impl Inputs {
        fn new(seed: u64, rows: usize, hidden: usize) -> Self {
            let draw = |purpose, width| draw(seed, purpose, rows * width * hidden);
            Self {
                hidden,
                input: draw("input", 4),
                recurrent: draw("recurrent", 4),
                before: draw("before", 1),
                doutput: draw("doutput", 1),
                dcell: draw("dcell", 1),
            }
        }

        fn results(&self, forward: impl FnOnce(LstmForward<'_>), backward: impl FnOnce(LstmBackward<'_>)) -> Results {
            let Self { input, before, doutput, .. } = self;
            let (mut gates, mut dcell) = (self.recurrent.clone(), self.dcell.clone());
            let [mut cell, mut output] = [vec![f32::NAN; before.len()], vec![f32::NAN; before.len()]];
            forward(LstmForward { input, gates: &mut gates, before, cell: &mut cell, output: &mut output });
            let mut dgates = vec![f32::NAN; gates.len()];
            let dcell_in_place = &mut dcell;
            backward(LstmBackward {
                gates: &gates,
                before,
                cell: &cell,
                doutput,
                dcell: dcell_in_place,
                dgates: &mut dgates,
            });
            [cell, output, dgates, dcell]
        }

        fn run(&self) -> Results {
            self.results(|step| step.run(self.hidden), |step| step.run(self.hidden))
        }

        fn check(&self, name: &str, results: &Results) {
            let (hidden, before) = (self.hidden, wide(&self.before));
            let gates: Vec<_> = self.input.iter().zip(&self.recurrent).map(|(a, b)| f64::from(a + b)).collect();
            let (cell, output) = reference::lstm::forward(&gates, &before, hidden);
            let gradients = [&wide(&self.dcell)[..], &wide(&self.doutput)];
            let (dgates, dbefore) = reference::lstm::backward(&gates, &before, hidden, gradients);
            for (what, got, exact) in [
                ("cell", &results[0], cell),
                ("output", &results[1], output),
                ("dgates", &results[2], dgates),
                ("dbefore", &results[3], dbefore),
            ] {
                assert_close(&format!("{what} {name}"), got, &exact, 1e-5);
            }
        }
    }

    struct Step<'a>(&'a Inputs);

    impl WithSimd for Step<'_> {
        type Output = Results;

        fn with_simd<S: Simd>(self, simd: S) -> Results {
            let hidden = self.0.hidden;
            let forward = |step: LstmForward<'_>| Forward(step, hidden).with_simd(simd);
            self.0.results(forward, |step| Backward(step, hidden).with_simd(simd))
        }
    }

    #[test]
    fn threads_do_not_matter() {
        for (rows, hidden) in [(300, 100), (5, 5000)] {
            let inputs = Inputs::new(0, rows, hidden);
            assert_threads_do_not_matter(&format!("{rows} rows of {hidden}"), || inputs.run().concat());
        }
    }

    proptest! {
        #![proptest_config(Config { cases: 100, failure_persistence: None, ..Config::default() })]

        #[test]
        fn cells_of_any_size(seed: u64, rows in 0_usize..20, hidden in prop_oneof![1_usize..40, 40_usize..400]) {
            let inputs = Inputs::new(seed, rows, hidden);
            for (set, results) in on_every_set(|| Step(&inputs)) {
                inputs.check(&format!("on {set}"), &results);
            }
            inputs.check("over all cores", &inputs.run());
        }
    }
}

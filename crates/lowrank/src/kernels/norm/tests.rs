//! The normalisations against the `f64` reference, on random shapes.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::kernels::buffers::fresh;
use crate::kernels::reference::norm::Sets;
use crate::kernels::testing::{assert_close, assert_threads_do_not_matter, draw, wide};

const EPSILON: f32 = 1e-3;

/// `[batch, channels, length]`, and what is normalised.
#[derive(Debug, Clone, Copy)]
struct Case {
    seed: u64,
    batch: usize,
    channels: usize,
    length: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Rows of `length` values, which are the parameters' axis too.
    Layer,
    /// So many groups.
    Group(usize),
    /// Channels, by given moments.
    Batch,
}

/// `[y, dx, dγ, dβ]`.
type Results = [Vec<f32>; 4];

impl Case {
    fn len(&self) -> usize {
        self.batch * self.channels * self.length
    }

    fn parameters(&self) -> usize {
        if matches!(self.kind, Kind::Layer) { self.length } else { self.channels }
    }

    fn draw(&self, purpose: &str, len: usize) -> Vec<f32> {
        draw(self.seed, purpose, len)
    }

    /// `x`, `dy`, `γ`, `β`; `x` far from zero, as where a variance is easily lost.
    fn inputs(&self) -> [Vec<f32>; 4] {
        let x = self.draw("x", self.len()).iter().map(|x| x + 20.0).collect();
        let [gamma, beta] = ["gamma", "beta"].map(|purpose| self.draw(purpose, self.parameters()));
        [x, self.draw("dy", self.len()), gamma, beta]
    }

    fn given(&self) -> Vec<Moments> {
        let means = self.draw("mean", self.channels);
        let variances = self.draw("variance", self.channels);
        means.iter().zip(variances).map(|(mean, variance)| moments(20.0 + mean, variance.abs(), EPSILON)).collect()
    }

    fn run(&self) -> Results {
        let &Self { batch, channels, length, kind, .. } = self;
        let [x, dy, gamma, beta] = self.inputs();
        let [mut dgamma, mut dbeta] = [vec![f32::NAN; gamma.len()], vec![f32::NAN; gamma.len()]];
        let mut sums = vec![[f32::NAN; 2]; batch * channels];
        let (y, dx);
        match kind {
            Kind::Layer => {
                let mut moments = vec![[f32::NAN; 2]; batch * channels];
                y = fresh(&x, |x| layer_norm(x, [&gamma, &beta], EPSILON, &mut moments));
                dx = fresh(&dy, |dy| layer_norm_backward(&x, &gamma, &moments, dy));
                layer_norm_parameters(&x, &moments, &dy, [&mut dgamma, &mut dbeta]);
            }
            Kind::Group(groups) => {
                let norm = GroupNorm { channels, groups, length };
                let mut moments = vec![[f32::NAN; 2]; batch * groups];
                norm.moments(&x, EPSILON, &mut moments);
                y = fresh(&x, |x| norm.forward(x, [&gamma, &beta], &moments));
                norm.sums(&x, &moments, &dy, &mut sums);
                let mut means = vec![[f32::NAN; 2]; batch * groups];
                norm.means(&gamma, &sums, &mut means);
                dx = fresh(&dy, |dy| norm.backward(&x, &gamma, &moments, &means, dy));
                channel_parameters(&sums, [&mut dgamma, &mut dbeta]);
            }
            Kind::Batch => {
                let (norm, moments) = (BatchNorm { channels, length }, self.given());
                y = fresh(&x, |x| norm.forward(x, [&gamma, &beta], &moments));
                dx = fresh(&dy, |dy| norm.backward(&gamma, &moments, dy));
                norm.sums(&x, &moments, &dy, &mut sums);
                channel_parameters(&sums, [&mut dgamma, &mut dbeta]);
            }
        }
        [y, dx, dgamma, dbeta]
    }

    fn check(&self) {
        let &Self { channels, length, kind, .. } = self;
        let (set, parameter): (Vec<_>, Vec<_>) = (0..self.len())
            .map(|place| match kind {
                Kind::Layer => (place / length, place % length),
                Kind::Group(groups) => (place / length / (channels / groups), place / length % channels),
                Kind::Batch => (place / length % channels, place / length % channels),
            })
            .unzip();
        let sets = Sets { set: &set, parameter: &parameter };
        let [x, dy, gamma, beta] = self.inputs().map(|values| wide(&values));
        let epsilon = f64::from(EPSILON);
        let (moments, gradients) = if let Kind::Batch = kind {
            let given = |[mean, rstd]: &Moments| [f64::from(*mean), f64::from(*rstd).powi(-2) - epsilon];
            let moments: Vec<_> = self.given().iter().map(given).collect();
            let gradients = sets.backward_given(&x, &gamma, &moments, epsilon, &dy);
            (moments, gradients)
        } else {
            (sets.moments(&x), sets.backward(&x, &gamma, epsilon, &dy))
        };
        let [got_y, got_dx, got_dgamma, got_dbeta] = self.run();
        // What a mean of 20 loses of a small spread, what γ makes of that, and what it adds up to in a sum along `dy`.
        let largest = |values: &[f64]| values.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
        let sharpest = moments.iter().map(|[_, variance]| (variance + epsilon).sqrt().recip()).fold(1.0, f64::max);
        let size = largest(&dy) * sharpest;
        let along = dy.iter().map(|dy| dy.abs()).sum::<f64>() / f64::from(u32::try_from(gamma.len().max(1)).unwrap());
        let (y_size, dx_size) = (sharpest * largest(&gamma), size * sharpest * largest(&gamma));
        assert_close("y", &got_y, &sets.forward(&x, [&gamma, &beta], &moments, epsilon), 1e-5 * y_size);
        assert_close("dx", &got_dx, &gradients.dx, 1e-5 * dx_size);
        assert_close("dγ", &got_dgamma, &gradients.dgamma, (1e-5 * size).max(1e-6 * along) * sharpest);
        assert_close("dβ", &got_dbeta, &gradients.dbeta, 1e-5 * size);
    }
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (0_usize..4, 1_usize..4, 1_usize..6, prop_oneof![1_usize..40, 40_usize..700], any::<u64>());
    shape.prop_flat_map(|(batch, groups, each, length, seed)| {
        let kind = prop_oneof![Just(Kind::Layer), Just(Kind::Group(groups)), Just(Kind::Batch)];
        kind.prop_map(move |kind| Case { seed, batch, channels: groups * each, length, kind })
    })
}

proptest! {
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_normalisation_agrees_with_the_reference(case in case()) {
        case.check();
    }
}

/// Sizes that are split: many rows, few long ones, and parts of rows.
const LARGE: [Case; 6] = [
    Case { seed: 1, batch: 30, channels: 20, length: 384, kind: Kind::Layer },
    Case { seed: 2, batch: 1, channels: 3, length: 70_001, kind: Kind::Layer },
    Case { seed: 3, batch: 2, channels: 6, length: 40_001, kind: Kind::Group(2) },
    Case { seed: 4, batch: 1, channels: 1, length: 300_001, kind: Kind::Group(1) },
    Case { seed: 5, batch: 40, channels: 64, length: 50, kind: Kind::Group(64) },
    Case { seed: 6, batch: 3, channels: 5, length: 30_001, kind: Kind::Batch },
];

#[test]
fn large_ones_agree_too() {
    LARGE.iter().for_each(Case::check);
}

#[test]
fn threads_do_not_matter() {
    for case in LARGE {
        assert_threads_do_not_matter(&format!("{case:?}"), || case.run().concat());
    }
}

#[test]
fn a_constant_row_becomes_beta() {
    let x = [7.0; 300];
    let (gamma, beta) = ([2.0; 100], [0.5; 100]);
    let mut moments = [[f32::NAN; 2]; 3];
    assert_eq!(fresh(&x, |x| layer_norm(x, [&gamma, &beta], EPSILON, &mut moments)), [0.5; 300]);
    let norm = GroupNorm { channels: 3, groups: 1, length: 100 };
    let mut moments = [[f32::NAN; 2]];
    norm.moments(&x, EPSILON, &mut moments);
    assert_eq!(fresh(&x, |x| norm.forward(x, [&[2.0; 3], &[0.5; 3]], &moments)), [0.5; 300]);
}

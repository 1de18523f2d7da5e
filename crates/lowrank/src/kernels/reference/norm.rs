//! Normalisation of sets of values, whatever the sets are.

/// Where the values of an array belong.
#[derive(Debug, Clone, Copy)]
pub struct Sets<'a> {
    /// For each place, its set: what shares a mean and a variance.
    pub set: &'a [usize],
    /// For each place, its `γ` and `β`.
    pub parameter: &'a [usize],
}

/// What a backward pass gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// By the input.
    pub dx: Vec<f64>,
    /// By `γ`.
    pub dgamma: Vec<f64>,
    /// By `β`.
    pub dbeta: Vec<f64>,
}

impl Sets<'_> {
    /// Mean and variance of each set.
    #[must_use]
    pub fn moments(&self, x: &[f64]) -> Vec<[f64; 2]> {
        let means = self.means(x);
        let squares: Vec<_> = x.iter().zip(self.set).map(|(x, &set)| (x - means[set]).powi(2)).collect();
        means.into_iter().zip(self.means(&squares)).map(|(mean, variance)| [mean, variance]).collect()
    }

    /// `x̂ = (x - mean) / √(variance + ε)`.
    #[must_use]
    pub fn normalised(&self, x: &[f64], moments: &[[f64; 2]], epsilon: f64) -> Vec<f64> {
        let value = |(x, &set): (&f64, &usize)| (x - moments[set][0]) / (moments[set][1] + epsilon).sqrt();
        x.iter().zip(self.set).map(value).collect()
    }

    /// `y = γ·x̂ + β`.
    #[must_use]
    pub fn forward(&self, x: &[f64], [gamma, beta]: [&[f64]; 2], moments: &[[f64; 2]], epsilon: f64) -> Vec<f64> {
        let normalised = self.normalised(x, moments, epsilon);
        normalised.iter().zip(self.parameter).map(|(x, &at)| gamma[at] * x + beta[at]).collect()
    }

    /// The gradients where the moments are constants.
    #[must_use]
    pub fn backward_given(
        &self,
        x: &[f64],
        gamma: &[f64],
        moments: &[[f64; 2]],
        epsilon: f64,
        dy: &[f64],
    ) -> Gradients {
        let normalised = self.normalised(x, moments, epsilon);
        let (mut dgamma, mut dbeta) = (vec![0.0; gamma.len()], vec![0.0; gamma.len()]);
        for ((dy, x), &at) in dy.iter().zip(&normalised).zip(self.parameter) {
            dgamma[at] += dy * x;
            dbeta[at] += dy;
        }
        let places = dy.iter().zip(self.set).zip(self.parameter);
        let dx = places.map(|((dy, &set), &at)| gamma[at] * dy / (moments[set][1] + epsilon).sqrt()).collect();
        Gradients { dx, dgamma, dbeta }
    }

    /// The gradients through the moments too: what the mean and the spread of a set take up of `γ·dy` is taken away.
    #[must_use]
    pub fn backward(&self, x: &[f64], gamma: &[f64], epsilon: f64, dy: &[f64]) -> Gradients {
        let moments = self.moments(x);
        let normalised = self.normalised(x, &moments, epsilon);
        let mut gradients = self.backward_given(x, gamma, &moments, epsilon, dy);
        let levels = self.means(&gradients.dx);
        let along: Vec<_> = gradients.dx.iter().zip(&normalised).map(|(dx, x)| dx * x).collect();
        let tilts = self.means(&along);
        for ((dx, x), &set) in gradients.dx.iter_mut().zip(&normalised).zip(self.set) {
            *dx -= levels[set] + x * tilts[set];
        }
        gradients
    }

    fn means(&self, x: &[f64]) -> Vec<f64> {
        let sets = self.set.iter().max().map_or(0, |last| last + 1);
        let (mut sums, mut counts) = (vec![0.0; sets], vec![0.0; sets]);
        for (x, &set) in x.iter().zip(self.set) {
            sums[set] += x;
            counts[set] += 1.0;
        }
        sums.into_iter().zip(counts).map(|(sum, count)| sum / count).collect()
    }
}

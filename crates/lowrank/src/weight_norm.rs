//! Weight normalisation: a weight as a direction and a length, `w = g · v / |v|`.
//!
//! `PyTorch` has it in two forms, hooks (`torch.nn.utils.weight_norm`) and parametrizations, which differ in the names of
//! their tensors alone (Salimans and Kingma, "Weight Normalization", 2016). An adapter adds to the weight and not to its
//! direction, so that the weight is folded before one is merged; with `g = |w|` and `v = w` it is normalised again.

/// The ends of the names of `g` and `v`, in the place of `weight`, for each form.
const FORMS: [[&str; 2]; 2] =
    [["weight_g", "weight_v"], ["parametrizations.weight.original0", "parametrizations.weight.original1"]];

/// The names that `g` and `v` of a weight can have: with hooks, and with parametrizations.
///
/// ```
/// use lowrank::weight_norm::names;
///
/// assert_eq!(names("conv.weight")[0], ["conv.weight_g", "conv.weight_v"]);
/// assert!(names("conv.bias").is_empty());
/// ```
#[must_use]
pub fn names(weight: &str) -> Vec<[String; 2]> {
    let module = weight.strip_suffix("weight").filter(|module| module.is_empty() || module.ends_with('.'));
    let form = |module: &str, ends: [&str; 2]| ends.map(|end| format!("{module}{end}"));
    module.into_iter().flat_map(|module| FORMS.map(|ends| form(module, ends))).collect()
}

/// The name of the weight that a `v` belongs to; none for another tensor.
#[must_use]
pub fn weight_of(v: &str) -> Option<String> {
    let module = FORMS.iter().find_map(|[_, end]| v.strip_suffix(end))?;
    (module.is_empty() || module.ends_with('.')).then(|| format!("{module}weight"))
}

/// Which lengths a `g` holds: those along one axis of the weight, `PyTorch`'s `dim`, or that of the whole weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    count: usize,
    /// Values behind the axis.
    inner: usize,
}

impl Lengths {
    /// From the shapes of `g` and `v`: as many axes, of which `g` has one and else ones, or none at all. Of a transposed
    /// convolution `PyTorch`'s default is the first axis too, which is that of its inputs.
    ///
    /// ```
    /// use lowrank::weight_norm::Lengths;
    ///
    /// assert!(Lengths::of(&[8, 1, 1], &[8, 4, 3]).is_some());
    /// assert!(Lengths::of(&[1, 1, 3], &[8, 4, 3]).is_some());
    /// assert!(Lengths::of(&[4, 1, 1], &[8, 4, 3]).is_none());
    /// ```
    #[must_use]
    pub fn of(g: &[usize], v: &[usize]) -> Option<Self> {
        if g.iter().all(|axis| *axis == 1) && (g.is_empty() || g.len() == v.len()) {
            // One length: of the whole weight, which is along an axis of length 1 as well.
            return Some(Self { count: 1, inner: 1 });
        }
        let axis = g.iter().position(|axis| *axis != 1)?;
        let fits = g.len() == v.len() && g[axis] == v[axis] && g[axis + 1..].iter().all(|axis| *axis == 1);
        fits.then(|| Self { count: g[axis], inner: v[axis + 1..].iter().product() })
    }

    /// The place in `g` of the length that a value of the weight is of.
    #[must_use]
    pub fn at(self, value: usize) -> usize {
        value / self.inner.max(1) % self.count.max(1)
    }

    /// `|w|`: what `g` is of a weight.
    #[must_use]
    pub fn measure(self, weight: &[f64]) -> Vec<f64> {
        let mut squares = vec![0.0; self.count];
        weight.iter().enumerate().for_each(|(at, value)| squares[self.at(at)] += value * value);
        squares.into_iter().map(f64::sqrt).collect()
    }

    /// `g · v / |v|`; not finite where `v` has no length.
    ///
    /// ```
    /// use lowrank::weight_norm::Lengths;
    ///
    /// let rows = Lengths::of(&[2, 1], &[2, 2]).unwrap();
    /// assert_eq!(rows.fold(&[10.0, 2.0], &[3.0, 4.0, 0.0, 0.5]), [6.0, 8.0, 0.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// When `g` has not as many values as there are lengths.
    #[must_use]
    pub fn fold(self, g: &[f64], v: &[f64]) -> Vec<f64> {
        let norms = self.measure(v);
        v.iter().enumerate().map(|(at, v)| v * (g[self.at(at)] / norms[self.at(at)])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_forms_come_back() {
        for weight in ["weight", "decoder.ups.0.weight"] {
            for [_, v] in names(weight) {
                assert_eq!(weight_of(&v).as_deref(), Some(weight));
            }
        }
        assert_eq!(
            [weight_of("conv.weight_g"), weight_of("conv.my_weight_v"), weight_of("weight")],
            [None, None, None]
        );
        assert!(names("my_weight").is_empty());
    }

    #[test]
    fn lengths_of_every_axis() {
        let v: Vec<f64> = (1..=24_u8).map(f64::from).collect();
        for (g, expected) in [
            (&[2, 1, 1][..], (0..24).map(|at| at / 12).collect::<Vec<_>>()),
            (&[1, 3, 1], (0..24).map(|at| at / 4 % 3).collect()),
            (&[1, 1, 4], (0..24).map(|at| at % 4).collect()),
            (&[], vec![0; 24]),
        ] {
            let lengths = Lengths::of(g, &[2, 3, 4]).unwrap();
            assert_eq!((0..24).map(|at| lengths.at(at)).collect::<Vec<_>>(), expected, "{g:?}");
            // With its own lengths, a weight is itself.
            let again = lengths.fold(&lengths.measure(&v), &v);
            assert!(again.iter().zip(&v).all(|(again, v)| (again - v).abs() < 1e-12), "{g:?}");
        }
        for (g, v) in [(&[3][..], &[3, 2][..]), (&[1, 2], &[3, 4]), (&[3, 2], &[3, 2]), (&[2, 1], &[3, 1])] {
            assert_eq!(Lengths::of(g, v), None, "{g:?} {v:?}");
        }
    }
}

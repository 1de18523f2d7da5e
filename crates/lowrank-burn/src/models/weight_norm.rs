//! Weight normalisation: a weight as a direction and a length.
//!
//! `w[o] = g[o] · v[o] / ‖v[o]‖` for every output channel (Salimans and Kingma, "Weight Normalization", 2016). Checkpoints
//! hold it as `weight_g` and `weight_v` (`PyTorch`'s hooks) or as `parametrizations.weight.original0` and `.original1`;
//! it is folded into one `weight` when a base is loaded, since an adapter adds to the weight and not to its direction.

use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;

/// The lengths of a weight's output channels, while a base is trained with weight normalisation.
#[derive(Module, Debug)]
pub(super) struct WeightNorm {
    g: Param<Tensor<1>>,
}

impl WeightNorm {
    /// Puts weight normalisation on every weight of a module that is a convolution's; values stay what they are.
    pub fn attach() -> impl Reparameterizer {
        Attach
    }
}

impl Reparameterization for WeightNorm {
    const NAME: &'static str = "weight_norm";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let mut shape = [1; D];
        shape[0] = base.dims()[0];
        let factor = self.g.val().reshape(shape) / lengths(base.clone()).reshape(shape);
        base * factor
    }
}

struct Attach;

impl Reparameterizer for Attach {
    type Reparam = WeightNorm;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<WeightNorm>) {
        let norm = (D > 2).then(|| WeightNorm { g: Param::from_tensor(lengths(param.val()).detach()) });
        (param, norm)
    }
}

/// The length of each output channel.
fn lengths<const D: usize>(weight: Tensor<D>) -> Tensor<1> {
    let channels = weight.dims()[0];
    let values = weight.shape().num_elements();
    let rows = weight.reshape([channels, values / channels]);
    rows.powi_scalar(2).sum_dim(1).sqrt().squeeze_dim(1)
}

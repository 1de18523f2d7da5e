//! Activations, value by value.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, Scalar, backend_extension};
use burn::tensor::Tensor;
use lowrank::kernels::activation::Activation;

use super::flex::{are_f32, contiguous, rewrite, values};

/// Forward and gradient of an activation, on one backend.
pub trait ActivationBody: Backend {
    /// `y = f(x)`.
    fn activation_forward(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        forward::<Self>(x, activation)
    }

    /// `dx = f'(x)·dy`; `kept` is `x`, or `y` where its sign tells as much: for [`relu`], and [`leaky_relu`] with a
    /// slope of at least 0.
    fn activation_backward(
        kept: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        backward::<Self>(kept, dy, activation)
    }
}

impl ActivationBody for Flex {
    fn activation_forward(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        if are_f32([&x]) { rewrite(x, |x| activation.forward(x)) } else { forward::<Self>(x, activation) }
    }

    fn activation_backward(
        kept: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        if !are_f32([&kept, &dy]) {
            return backward::<Self>(kept, dy, activation);
        }
        let kept = contiguous(kept);
        rewrite(dy, |dy| activation.backward(values(&kept), dy))
    }
}

/// Whether the sign of the output, all that the derivative asks for, is that of the input: then nothing but the output is
/// kept, which the next layer keeps anyway.
fn keeps_output(activation: Activation) -> bool {
    match activation {
        Activation::Identity | Activation::Relu => true,
        Activation::LeakyRelu(slope) => slope >= 0.0,
        Activation::Gelu | Activation::GeluTanh | Activation::Silu => false,
    }
}

/// `√(2/π)` and its product with 0.044715.
const TANH_FORM: [f32; 2] = [0.797_884_6, 0.035_677_407];

fn forward<B: Backend>(x: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    match activation {
        Activation::Identity => x,
        Activation::Relu => B::relu(x),
        Activation::LeakyRelu(slope) => B::leaky_relu(x, Scalar::from(slope)),
        Activation::Gelu => B::float_mul(x.clone(), normal_cdf::<B>(x)),
        Activation::GeluTanh => B::float_mul(x.clone(), B::sigmoid(scaled::<B>(tanh_form::<B>(x), 2.0))),
        Activation::Silu => B::float_mul(x.clone(), B::sigmoid(x)),
    }
}

fn backward<B: Backend>(kept: FloatTensor<B>, dy: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    let x = kept;
    let derivative = match activation {
        Activation::Identity => return dy,
        Activation::Relu => return B::relu_backward(x, dy),
        Activation::LeakyRelu(slope) => {
            let positive = scaled::<B>(B::relu_backward(x, dy.clone()), 1.0 - slope);
            return B::float_add(scaled::<B>(dy, slope), positive);
        }
        Activation::Gelu => {
            let square = scaled::<B>(B::float_mul(x.clone(), x.clone()), -0.5);
            let density = scaled::<B>(B::float_exp(square), 0.398_942_3);
            B::float_add(normal_cdf::<B>(x.clone()), B::float_mul(x, density))
        }
        Activation::GeluTanh => {
            let share = B::sigmoid(scaled::<B>(tanh_form::<B>(x.clone()), 2.0));
            let square = scaled::<B>(B::float_mul(x.clone(), x.clone()), 3.0 * TANH_FORM[1]);
            let inner = scaled::<B>(B::float_add_scalar(square, Scalar::from(TANH_FORM[0])), 2.0);
            B::float_add(share.clone(), B::sigmoid_backward(share, B::float_mul(x, inner)))
        }
        Activation::Silu => {
            let share = B::sigmoid(x.clone());
            B::float_add(share.clone(), B::sigmoid_backward(share, x))
        }
    };
    B::float_mul(derivative, dy)
}

fn scaled<B: Backend>(x: FloatTensor<B>, factor: f32) -> FloatTensor<B> {
    B::float_mul_scalar(x, Scalar::from(factor))
}

/// `(1 + erf(x/√2)) / 2`.
fn normal_cdf<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(scaled::<B>(x, std::f32::consts::FRAC_1_SQRT_2));
    scaled::<B>(B::float_add_scalar(erf, Scalar::from(1.0)), 0.5)
}

/// `√(2/π)·(x + 0.044715·x³)`.
fn tanh_form<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let square = scaled::<B>(B::float_mul(x.clone(), x.clone()), TANH_FORM[1]);
    B::float_mul(x, B::float_add_scalar(square, Scalar::from(TANH_FORM[0])))
}

/// An activation as an operation of a backend; its backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait Activate: Backend {
    /// `f(x)`.
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
}

impl<B: ActivationBody> Activate for B {
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        Self::activation_forward(x, activation)
    }
}

#[derive(Debug)]
struct ActivateBackward;

impl<B: ActivationBody> Backward<B, 1> for ActivateBackward {
    type State = (FloatTensor<B>, Activation);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (kept, activation) = ops.state;
        if let Some(node) = node {
            grads.register::<B>(node.id, B::activation_backward(kept, dy, activation));
        }
    }
}

impl<B: ActivationBody, C: CheckpointStrategy> Activate for Autodiff<B, C> {
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let prepared = ActivateBackward.prepare::<C>([x.node()]).compute_bound().stateful();
        let x = x.into_primitive();
        match prepared {
            OpsKind::Tracked(prepared) if keeps_output(activation) => {
                let y = B::activation_forward(x, activation);
                prepared.finish((y.clone(), activation), y)
            }
            OpsKind::Tracked(prepared) => {
                let y = B::activation_forward(x.clone(), activation);
                prepared.finish((x, activation), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::activation_forward(x, activation)),
        }
    }
}

/// Applies an activation to every value.
#[must_use]
pub fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Activate>::activate(x.into_dispatch(), activation))
}

/// `max(x, 0)`.
#[must_use]
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::Relu)
}

/// `x` where it is positive, `slope·x` elsewhere.
#[must_use]
pub fn leaky_relu<const D: usize>(x: Tensor<D>, slope: f32) -> Tensor<D> {
    activate(x, Activation::LeakyRelu(slope))
}

/// `x·Φ(x)`, with the distribution function of the normal distribution (Hendrycks and Gimpel, 2016).
#[must_use]
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::Gelu)
}

/// `x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2`, the approximation of [`gelu`].
#[must_use]
pub fn gelu_approximate<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::GeluTanh)
}

/// `x / (1 + e⁻ˣ)`.
#[must_use]
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::Silu)
}

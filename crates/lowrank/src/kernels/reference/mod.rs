//! The referee: every layer and every adapter as plain loops in `f64`.
//!
//! Nothing here is fast, nothing is clever, and nothing is shared with what it judges but [`ConvGeometry`], which says
//! which value of the input a tap reads. Each function is one equation; each backward pass is the chain rule written
//! out from the same terms as the forward pass. All tensors are row-major, in `PyTorch`'s shapes.
//!
//! Functions panic when slices do not have the sizes of their shapes: they are for tests.
//!
//! [`ConvGeometry`]: crate::geometry::ConvGeometry

pub mod activation;
pub mod adapter;
pub mod attention;
pub mod conv;
pub mod conv_transpose;
pub mod dora;
pub mod embedding;
pub mod linear;
pub mod lstm;
pub mod norm;
pub mod softmax;

/// What a layer's backward pass gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// By the input; empty for an embedding, whose input is indices.
    pub dx: Vec<f64>,
    /// By the weight.
    pub dw: Vec<f64>,
    /// By the bias: the sum of `dy` over everything but the channel.
    pub dbias: Vec<f64>,
}

/// What an adapter's backward pass gives, its own share of `dx` included.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterGradients {
    /// By the input, through the adapter alone; empty for an embedding.
    pub dx: Vec<f64>,
    /// By `A`.
    pub da: Vec<f64>,
    /// By `B`.
    pub db: Vec<f64>,
    /// By the bias of `B`, whether it has one or not: `scale` times the sum of `dy`.
    pub dbias: Vec<f64>,
}

#[cfg(test)]
mod tests;

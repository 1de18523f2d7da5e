//! `CubeCL`'s backends, `wgpu` among them: the default bodies.

use burn::backend::Cube;

use super::{ActivationBody, AttentionBody, ConvBody, LinearBody, LstmBody, MagnitudeBody, NormBody, SoftmaxBody};

impl ActivationBody for Cube {}
impl AttentionBody for Cube {}
impl ConvBody for Cube {}
impl LinearBody for Cube {}
impl LstmBody for Cube {}
impl MagnitudeBody for Cube {}
impl NormBody for Cube {}
impl SoftmaxBody for Cube {}

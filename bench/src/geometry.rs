//! The Conv1d layers that are measured: `geometries.toml`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
use serde::{Deserialize, Serialize};

/// One layer and the input it is measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// A short name, unique.
    pub name: String,
    /// The model it comes from.
    pub model: String,
    /// Channels of the input.
    #[serde(rename = "in")]
    pub inputs: usize,
    /// Channels of the output.
    #[serde(rename = "out")]
    pub outputs: usize,
    /// Taps.
    pub kernel: usize,
    /// Positions from one output to the next.
    #[serde(default = "one")]
    pub stride: usize,
    /// Positions from one tap to the next.
    #[serde(default = "one")]
    pub dilation: usize,
    /// Groups of channels.
    #[serde(default = "one")]
    pub groups: usize,
    /// Positions added at the ends.
    #[serde(default)]
    pub padding: Ends,
    /// What is added there.
    #[serde(default)]
    pub padding_mode: PaddingMode,
    /// Whether the layer has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Examples in the input.
    #[serde(default = "one")]
    pub batch: usize,
    /// Positions of the input.
    pub length: usize,
    /// Whether `--quick` measures it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quick: bool,
}

/// Padding as one number for both ends, or one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ends {
    /// `PyTorch`'s form.
    Both(usize),
    /// Left and right.
    Each([usize; 2]),
}

impl Default for Ends {
    fn default() -> Self {
        Self::Both(0)
    }
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    geometry: Vec<Geometry>,
}

impl Geometry {
    /// The layers of a file, checked.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let File { geometry } = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for (at, own) in geometry.iter().enumerate() {
            own.conv().and_then(|conv| conv.output_lengths(&[own.length])).with_context(|| own.name.clone())?;
            ensure!(geometry[..at].iter().all(|other| other.name != own.name), "two layers are called {}", own.name);
        }
        Ok(geometry)
    }

    /// A plain layer of the sweeps: as many outputs as inputs, and the length is kept.
    pub fn sweep(channels: usize, kernel: usize, length: usize) -> Self {
        Self {
            name: format!("{channels}->{channels} k{kernel}"),
            model: "sweep".into(),
            inputs: channels,
            outputs: channels,
            kernel,
            stride: 1,
            dilation: 1,
            groups: 1,
            padding: Ends::Both(kernel / 2),
            padding_mode: PaddingMode::Zeros,
            bias: true,
            batch: 1,
            length,
            quick: false,
        }
    }

    /// Positions added left and right.
    pub fn ends(&self) -> (usize, usize) {
        match self.padding {
            Ends::Both(both) => (both, both),
            Ends::Each([left, right]) => (left, right),
        }
    }

    fn conv(&self) -> lowrank::Result<ConvGeometry> {
        let (left, right) = self.ends();
        let (kernel, stride, dilation) = (self.kernel, self.stride, self.dilation);
        let axis = Axis { kernel, stride, dilation, padding: Padding::Explicit(left, right) };
        ConvGeometry::new(self.inputs, self.outputs, self.groups, self.padding_mode, vec![axis])
    }

    /// Positions of the output.
    ///
    /// # Panics
    /// When there is no output; [`Geometry::read`] has refused such layers.
    pub fn output_length(&self) -> usize {
        let lengths = self.conv().and_then(|conv| conv.output_lengths(&[self.length]));
        lengths.expect("the geometry was checked when it was read")[0]
    }

    /// Values one output position of one channel is made of.
    pub fn row(&self) -> usize {
        self.inputs / self.groups * self.kernel
    }

    /// Whether every channel has a group of its own.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.inputs
    }

    /// The smaller number of channels.
    pub fn channels(&self) -> usize {
        self.inputs.min(self.outputs)
    }

    /// Floating-point operations of a forward: a multiplication and an addition for every tap.
    #[expect(clippy::cast_precision_loss, reason = "a figure for a report")]
    pub fn flops(&self) -> f64 {
        (2 * self.batch * self.outputs * self.row() * self.output_length()) as f64
    }

    /// Bytes a forward has to move at least: the input, the weight and the bias read once, the output written once.
    #[expect(clippy::cast_precision_loss, reason = "a figure for a report")]
    pub fn bytes(&self) -> f64 {
        let input = self.batch * self.inputs * self.length;
        let output = self.batch * self.outputs * self.output_length();
        let layer = self.outputs * (self.row() + usize::from(self.bias));
        (size_of::<f32>() * (input + output + layer)) as f64
    }

    /// Operations a byte.
    pub fn intensity(&self) -> f64 {
        self.flops() / self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_layers_are_well_formed() {
        let all = Geometry::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/geometries.toml"))).unwrap();
        assert!(all.len() >= 30, "{}", all.len());
        assert!(all.iter().any(|geometry| geometry.quick));
    }

    #[test]
    fn counts_of_a_known_layer() {
        let geometry = Geometry { stride: 2, length: 10, batch: 3, bias: false, ..Geometry::sweep(4, 3, 10) };
        assert_eq!(geometry.output_length(), 5);
        assert!((geometry.flops() - 1440.0).abs() < 0.5); // 2 * 3 * 4 * 12 * 5
        assert!((geometry.bytes() - 912.0).abs() < 0.5); // 4 * (3 * 4 * 10 + 3 * 4 * 5 + 4 * 12)
    }
}

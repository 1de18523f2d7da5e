//! The geometry of a convolution: what reads from where, and how long the output is.
//!
//! Everything here agrees with `PyTorch`'s `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`. This is the only place that computes
//! lengths or positions of a convolution; layers, kernels and tests ask it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Subject};

/// What stands outside the input: `PyTorch`'s `padding_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The input mirrored at its first and last value, which are not repeated.
    Reflect,
    /// The first and the last value.
    Replicate,
    /// The input over again.
    Circular,
}

impl fmt::Display for PaddingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zeros => "zeros",
            Self::Reflect => "reflect",
            Self::Replicate => "replicate",
            Self::Circular => "circular",
        })
    }
}

/// How much is added to the two ends of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Padding {
    /// Nothing: `PyTorch`'s `"valid"`.
    #[default]
    Valid,
    /// As much as keeps the length: `PyTorch`'s `"same"`, for stride 1 only. Of an odd total the end gets the larger half.
    Same,
    /// That many positions before and after. `PyTorch`'s layers have equal numbers only; a causal convolution has
    /// `Explicit(dilation * (kernel - 1), 0)`.
    Explicit(usize, usize),
}

/// One axis of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Axis {
    /// Taps of the kernel.
    pub kernel: usize,
    /// Positions from one output to the next.
    pub stride: usize,
    /// Positions from one tap to the next.
    pub dilation: usize,
    /// What is added at the ends.
    pub padding: Padding,
}

impl Axis {
    /// An axis with `PyTorch`'s defaults: stride 1, dilation 1, no padding.
    #[must_use]
    pub fn new(kernel: usize) -> Self {
        Self { kernel, stride: 1, dilation: 1, padding: Padding::Valid }
    }

    /// Positions from the first tap to the last, both included; `None` when that cannot be counted.
    fn checked_span(self) -> Option<usize> {
        self.kernel.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)
    }
}

/// A convolution over one to three axes.
///
/// ```
/// use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
///
/// // Whisper's second convolution halves the length.
/// let axis = Axis { stride: 2, padding: Padding::Explicit(1, 1), ..Axis::new(3) };
/// let conv = ConvGeometry::new(384, 384, 1, PaddingMode::Zeros, vec![axis])?;
/// assert_eq!(conv.weight_shape(), [384, 384, 3]);
/// assert_eq!(conv.output_lengths(&[3000])?, [1500]);
/// # Ok::<(), lowrank::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    padding_mode: PaddingMode,
    axes: Vec<Axis>,
}

impl ConvGeometry {
    /// A convolution of `in_channels` to `out_channels` in `groups`.
    ///
    /// # Errors
    /// When there are not one to three axes, when a channel count, `groups`, a kernel, a stride or a dilation is zero,
    /// when the groups do not divide the channels, when [`Padding::Same`] meets a stride, and when the span of a kernel
    /// or the weight cannot be counted.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        groups: usize,
        padding_mode: PaddingMode,
        axes: Vec<Axis>,
    ) -> Result<Self> {
        if !(1..=3).contains(&axes.len()) {
            return Err(wrong("a convolution has one to three axes").found(axes.len()));
        }
        for (name, value) in [("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)] {
            if value == 0 {
                return Err(wrong(format!("{name} must be positive")).found(0));
            }
        }
        for (name, value) in [("in_channels", in_channels), ("out_channels", out_channels)] {
            if value % groups != 0 {
                return Err(wrong(format!("{name} must be divisible by groups"))
                    .found(format!("{value} channels in {groups} groups")));
            }
        }
        for (index, axis) in axes.iter().enumerate() {
            check_axis(*axis).map_err(|error| error.at(format!("axis {index}")))?;
        }
        let geometry = Self { in_channels, out_channels, groups, padding_mode, axes };
        let values = geometry.weight_shape().iter().try_fold(1, |product: usize, axis| product.checked_mul(*axis));
        if values.is_none_or(|values| values > isize::MAX as usize / 8) {
            return Err(wrong("the weight is too large").found(format!("{:?}", geometry.weight_shape())));
        }
        Ok(geometry)
    }

    /// Channels of the input, over all groups.
    #[must_use]
    pub fn in_channels(&self) -> usize {
        self.in_channels
    }

    /// Channels of the output, over all groups.
    #[must_use]
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// Groups of channels that do not see each other.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// What stands outside the input.
    #[must_use]
    pub fn padding_mode(&self) -> PaddingMode {
        self.padding_mode
    }

    /// The axes, in the order of the weight's.
    #[must_use]
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// The shape of the weight: `(out, in/groups, kernel..)`.
    #[must_use]
    pub fn weight_shape(&self) -> Vec<usize> {
        let channels = [self.out_channels, self.in_channels / self.groups];
        channels.into_iter().chain(self.axes.iter().map(|axis| axis.kernel)).collect()
    }

    /// Positions added before and after the input along `axis`.
    ///
    /// # Panics
    /// When there is no such axis.
    #[must_use]
    pub fn padding(&self, axis: usize) -> (usize, usize) {
        let axis = self.axes[axis];
        match axis.padding {
            Padding::Valid => (0, 0),
            Padding::Same => {
                let total = axis.dilation * (axis.kernel - 1);
                (total / 2, total - total / 2)
            }
            Padding::Explicit(before, after) => (before, after),
        }
    }

    /// Output lengths for input `lengths`, one an axis.
    ///
    /// Along each axis, with `before` and `after` of [`Self::padding`], the length is
    /// `(length + before + after - dilation * (kernel - 1) - 1) / stride + 1`, rounded down.
    ///
    /// # Errors
    /// When there is not one length an axis, when a length is zero, when the padded input is shorter than the kernel's
    /// span, and when the padding is larger than the input can supply: `reflect` needs more values than it adds,
    /// `circular` as many.
    pub fn output_lengths(&self, lengths: &[usize]) -> Result<Vec<usize>> {
        if lengths.len() != self.axes.len() {
            return Err(wrong("wrong number of input axes").found(lengths.len()).expected(self.axes.len()));
        }
        let lengths = lengths.iter().enumerate();
        lengths
            .map(|(axis, length)| self.output_length(axis, *length).map_err(|error| error.at(format!("axis {axis}"))))
            .collect()
    }

    /// The lengths that the transpose of this convolution gives for input `lengths`, one an axis: those from which this one
    /// makes `lengths`, and `padding_out` more.
    ///
    /// Along each axis the length is `(length - 1) * stride + dilation * (kernel - 1) + 1 - before - after + padding_out`.
    /// `padding_out` is below the stride.
    ///
    /// ```
    /// use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
    ///
    /// // The first upsampling of HiFi-GAN takes 512 channels to 256, and one position to eight.
    /// let axis = Axis { stride: 8, padding: Padding::Explicit(4, 4), ..Axis::new(16) };
    /// let conv = ConvGeometry::new(256, 512, 1, PaddingMode::Zeros, vec![axis])?;
    /// assert_eq!(conv.transposed_lengths(&[32], &[0])?, [256]);
    /// assert_eq!(conv.output_lengths(&[256])?, [32]);
    /// # Ok::<(), lowrank::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there is not one length and one padding an axis, when a length is zero, a padding not below its stride, when
    /// nothing is left within the padding, and when a length cannot be counted.
    pub fn transposed_lengths(&self, lengths: &[usize], padding_out: &[usize]) -> Result<Vec<usize>> {
        if [lengths.len(), padding_out.len()] != [self.axes.len(); 2] {
            return Err(wrong("wrong number of input axes").found(lengths.len()).expected(self.axes.len()));
        }
        let along = lengths.iter().zip(padding_out).enumerate();
        let length = |(axis, (length, out)): (usize, (&usize, &usize))| {
            self.transposed_length(axis, *length, *out).map_err(|error| error.at(format!("axis {axis}")))
        };
        along.map(length).collect()
    }

    fn transposed_length(&self, axis: usize, length: usize, padding_out: usize) -> Result<usize> {
        let Axis { kernel, stride, dilation, .. } = self.axes[axis];
        if padding_out >= stride {
            return Err(wrong("the padding of the output is not below the stride").found(padding_out).expected(stride));
        }
        let Some(before_last) = length.checked_sub(1) else { return Err(wrong("the input is empty")) };
        let span = dilation * (kernel - 1) + 1 + padding_out;
        let whole = before_last.checked_mul(stride).and_then(|start| start.checked_add(span));
        let whole = whole.ok_or_else(|| wrong("the output is too long").found(length))?;
        let (before, after) = self.padding(axis);
        whole.checked_sub(before + after).filter(|left| *left > 0).ok_or_else(|| {
            wrong("nothing of the output is left within the padding")
                .found(format!("{whole} positions, {} of padding", before + after))
                .with_hint("use longer inputs, or less padding")
        })
    }

    fn output_length(&self, axis: usize, length: usize) -> Result<usize> {
        if length == 0 {
            return Err(wrong("the input is empty").with_hint("leave recordings without samples out"));
        }
        let (before, after) = self.padding(axis);
        let larger = before.max(after);
        let least = match self.padding_mode {
            PaddingMode::Zeros | PaddingMode::Replicate => 1,
            PaddingMode::Reflect => larger.saturating_add(1),
            PaddingMode::Circular => larger,
        };
        if length < least {
            return Err(wrong(format!("the input is too short for {} padding of {larger}", self.padding_mode))
                .found(length)
                .expected(format!("at least {least}"))
                .with_hint("use longer inputs, or padding_mode \"zeros\" or \"replicate\""));
        }
        let Axis { kernel, stride, dilation, .. } = self.axes[axis];
        let span = dilation * (kernel - 1) + 1;
        let padded = length.checked_add(before).and_then(|sum| sum.checked_add(after));
        let padded = padded.ok_or_else(|| wrong("the padded input is too long").found(length))?;
        let room = padded.checked_sub(span).ok_or_else(|| {
            wrong(format!("the input is shorter than the kernel ({kernel} taps, dilation {dilation})"))
                .found(format!("{length} and {} of padding", before + after))
                .expected(format!("at least {span} together"))
                .with_hint("use longer inputs, or more padding")
        })?;
        Ok(room / stride + 1)
    }

    /// The position of the input that a position of the padded input reads; `None` where it reads a zero.
    ///
    /// Tap `t` of output `o` reads padded position `o * stride + t * dilation`. The answer has a meaning for positions
    /// within the padded input, and lengths that [`Self::output_lengths`] accepts.
    ///
    /// # Panics
    /// When there is no such axis.
    #[must_use]
    pub fn source(&self, axis: usize, padded_position: usize, length: usize) -> Option<usize> {
        let (before, _) = self.padding(axis);
        let position = match padded_position.checked_sub(before) {
            Some(position) if position < length => Some(position),
            Some(position) => {
                let beyond = position - length;
                match self.padding_mode {
                    PaddingMode::Zeros => None,
                    PaddingMode::Reflect => length.checked_sub(beyond.saturating_add(2)),
                    PaddingMode::Replicate => length.checked_sub(1),
                    PaddingMode::Circular => Some(beyond),
                }
            }
            None => {
                let missing = before - padded_position;
                match self.padding_mode {
                    PaddingMode::Zeros => None,
                    PaddingMode::Reflect => Some(missing),
                    PaddingMode::Replicate => Some(0),
                    PaddingMode::Circular => length.checked_sub(missing),
                }
            }
        };
        position.filter(|position| *position < length)
    }
}

fn check_axis(axis: Axis) -> Result<()> {
    for (name, value) in [("kernel", axis.kernel), ("stride", axis.stride), ("dilation", axis.dilation)] {
        if value == 0 {
            return Err(wrong(format!("{name} must be positive")).found(0));
        }
    }
    if axis.padding == Padding::Same && axis.stride != 1 {
        return Err(wrong("padding \"same\" is for stride 1")
            .found(format!("stride {}", axis.stride))
            .with_hint("give the padding as numbers"));
    }
    let counted = axis.checked_span().is_some();
    let padding_counted =
        !matches!(axis.padding, Padding::Explicit(before, after) if before.checked_add(after).is_none());
    if !counted || !padding_counted {
        return Err(wrong("the kernel's span or its padding is too large").found(format!("{axis:?}")));
    }
    Ok(())
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::new(Subject::Geometry, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(mode: PaddingMode, axis: Axis) -> ConvGeometry {
        ConvGeometry::new(4, 8, 2, mode, vec![axis]).unwrap()
    }

    /// The padded input `[0, 1, 2]` as positions, `-` for a zero.
    fn padded(mode: PaddingMode, before: usize, after: usize) -> String {
        let axis = Axis { padding: Padding::Explicit(before, after), ..Axis::new(1) };
        let conv = conv(mode, axis);
        assert_eq!(conv.output_lengths(&[3]).unwrap(), [3 + before + after]);
        let position = |p| conv.source(0, p, 3).map_or("-".to_string(), |source| source.to_string());
        (0..3 + before + after).map(position).collect()
    }

    #[test]
    fn padding_modes_read_what_pytorch_reads() {
        assert_eq!(padded(PaddingMode::Zeros, 2, 1), "--012-");
        assert_eq!(padded(PaddingMode::Reflect, 2, 2), "2101210");
        assert_eq!(padded(PaddingMode::Reflect, 0, 1), "0121");
        assert_eq!(padded(PaddingMode::Replicate, 4, 1), "00000122");
        assert_eq!(padded(PaddingMode::Circular, 3, 2), "01201201");
    }

    #[test]
    fn lengths_of_known_models() {
        let length = |kernel, stride, dilation, padding, length: usize| {
            let axis = Axis { kernel, stride, dilation, padding };
            conv(PaddingMode::Zeros, axis).output_lengths(&[length]).unwrap()[0]
        };
        assert_eq!(length(3, 1, 1, Padding::Explicit(1, 1), 3000), 3000);
        assert_eq!(length(10, 5, 1, Padding::Valid, 16000), 3199);
        assert_eq!(length(128, 1, 1, Padding::Explicit(64, 64), 49), 50);
        assert_eq!(length(3, 1, 8, Padding::Explicit(16, 0), 512), 512);
        assert_eq!(length(4, 1, 3, Padding::Same, 5), 5);
    }

    #[test]
    fn same_puts_the_larger_half_at_the_end() {
        let same = |kernel, dilation| {
            let axis = Axis { dilation, padding: Padding::Same, ..Axis::new(kernel) };
            conv(PaddingMode::Zeros, axis).padding(0)
        };
        assert_eq!((same(4, 1), same(4, 3), same(3, 2), same(1, 5)), ((1, 2), (4, 5), (2, 2), (0, 0)));
    }

    #[test]
    fn inputs_that_are_too_short_are_refused() {
        let axis = |padding| Axis { dilation: 2, padding, ..Axis::new(3) };
        let error = conv(PaddingMode::Zeros, axis(Padding::Valid)).output_lengths(&[4]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "axis 0: the input is shorter than the kernel (3 taps, dilation 2): found 4 and 0 of padding, expected at \
             least 5 together"
        );
        assert!(error.hint().is_some());
        let padded = axis(Padding::Explicit(3, 3));
        for (mode, least) in [
            (PaddingMode::Zeros, 1),
            (PaddingMode::Replicate, 1),
            (PaddingMode::Reflect, 4),
            (PaddingMode::Circular, 3),
        ] {
            let conv = conv(mode, padded);
            assert!(conv.output_lengths(&[least - 1]).is_err(), "{mode}");
            assert_eq!(conv.output_lengths(&[least]).unwrap(), [least + 2], "{mode}");
        }
    }

    #[test]
    fn impossible_geometries_are_refused() {
        let new = |channels: (usize, usize), groups, axes| {
            ConvGeometry::new(channels.0, channels.1, groups, PaddingMode::Zeros, axes).unwrap_err().to_string()
        };
        let axis = Axis::new(3);
        assert_eq!(new((4, 4), 1, vec![]), "a convolution has one to three axes: found 0");
        assert_eq!(
            new((4, 6), 4, vec![axis]),
            "out_channels must be divisible by groups: found 6 channels in 4 groups"
        );
        assert_eq!(new((4, 4), 0, vec![axis]), "groups must be positive: found 0");
        assert_eq!(new((4, 4), 1, vec![axis, Axis::new(0)]), "axis 1: kernel must be positive: found 0");
        let strided = Axis { stride: 2, padding: Padding::Same, ..axis };
        assert_eq!(new((4, 4), 1, vec![strided]), "axis 0: padding \"same\" is for stride 1: found stride 2");
        let endless =
            [Axis { dilation: usize::MAX, ..axis }, Axis { padding: Padding::Explicit(usize::MAX, 1), ..axis }];
        for axis in endless {
            assert!(new((4, 4), 1, vec![axis]).contains("too large"));
        }
        assert!(new((usize::MAX, 4), 1, vec![axis]).contains("too large"));
    }

    #[test]
    fn wrong_axis_counts_and_endless_inputs_are_errors() {
        let axis = Axis { padding: Padding::Explicit(1, 1), ..Axis::new(3) };
        let conv = conv(PaddingMode::Zeros, axis);
        assert!(conv.output_lengths(&[3, 3]).is_err());
        assert!(conv.output_lengths(&[usize::MAX]).is_err());
    }
}

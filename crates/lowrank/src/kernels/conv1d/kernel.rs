//! Kernels of a convolution, or of its gradient, block by block: unpacked from half precision and folded with their adapter
//! where they are needed, so that the whole of them never stands in memory twice.

use std::ops::Range;

use super::Problem;
use super::weights::Weight;

/// The weight `(groups · out, in, taps)` as kernels `(rows, channels, taps)` of every group.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    weight: &'a Weight<'a>,
    /// Rows and channels of a group.
    pub size: [usize; 2],
    /// At least one.
    pub taps: usize,
    /// Whether rows are inputs and channels are outputs.
    transposed: bool,
}

/// Where `(row, channel, tap)` stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strides {
    pub row: usize,
    pub channel: usize,
    pub tap: usize,
}

impl<'a> Kernel<'a> {
    /// From inputs to outputs.
    pub fn forward(weight: &'a Weight<'a>, problem: &Problem<'_>) -> Self {
        Self::new(weight, [problem.outputs().channels, problem.inputs().channels, problem.taps()])
    }

    /// From outputs to inputs.
    pub fn back(weight: &'a Weight<'a>, problem: &Problem<'_>) -> Self {
        Self::forward(weight, problem).transposed()
    }

    /// Of a weight whose groups are `(out, in, taps)`.
    pub fn new(weight: &'a Weight<'a>, [rows, channels, taps]: [usize; 3]) -> Self {
        Self { weight, size: [rows, channels], taps, transposed: false }
    }

    pub fn transposed(self) -> Self {
        let [rows, channels] = self.size;
        Self { size: [channels, rows], transposed: !self.transposed, ..self }
    }

    /// What [`Kernel::block`] needs for so many rows and channels.
    pub fn memory(&self, [rows, channels]: [usize; 2]) -> usize {
        if self.weight.in_place().is_some() {
            return 0;
        }
        let outputs = if self.transposed { channels } else { rows };
        rows * channels * self.taps + self.weight.memory(outputs)
    }

    /// Some rows and channels of a group: where they stand, or in `memory`.
    pub fn block<'b>(
        &'b self,
        group: usize,
        rows: Range<usize>,
        channels: Range<usize>,
        memory: &'b mut [f32],
    ) -> (&'b [f32], Strides) {
        let taps = self.taps;
        let (outputs, inputs) = if self.transposed { (channels, rows) } else { (rows, channels) };
        let [of_outputs, of_inputs] = if self.transposed { [self.size[1], self.size[0]] } else { self.size };
        let n = of_inputs * taps;
        let (first, columns) = (group * of_outputs + outputs.start, inputs.start * taps..inputs.end * taps);
        let (values, output) = if let Some(values) = self.weight.in_place() {
            (&values[(first * n + columns.start).min(values.len())..], n)
        } else {
            let width = columns.len();
            let (values, memory) = memory.split_at_mut(outputs.len() * width);
            self.weight.fold(n, first..first + outputs.len(), columns, values, memory);
            (&*values, width)
        };
        let strides = if self.transposed {
            Strides { row: taps, channel: output, tap: 1 }
        } else {
            Strides { row: output, channel: taps, tap: 1 }
        };
        (values, strides)
    }
}

//! Linear layers: `nn.Linear` and, with its weight transposed, transformers' `Conv1D`.

use super::Gradients;

/// `y[n, o] = bias[o] + sum_i w[o, i] * x[n, i]`, for `w` of shape `(out, in)` and `x` of shape `(batch, in)`.
#[must_use]
pub fn forward(inputs: usize, outputs: usize, x: &[f64], w: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks_exact(inputs) {
        for o in 0..outputs {
            let bias = bias.map_or(0.0, |bias| bias[o]);
            y.push(bias + (0..inputs).map(|i| w[o * inputs + i] * x[i]).sum::<f64>());
        }
    }
    y
}

/// The gradients of `sum(dy * forward(x, w, bias))`.
#[must_use]
pub fn backward(inputs: usize, outputs: usize, x: &[f64], w: &[f64], dy: &[f64]) -> Gradients {
    let (mut dx, mut dw, mut dbias) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
    for (n, dy) in dy.chunks_exact(outputs).enumerate() {
        for o in 0..outputs {
            dbias[o] += dy[o];
            for i in 0..inputs {
                dx[n * inputs + i] += dy[o] * w[o * inputs + i];
                dw[o * inputs + i] += dy[o] * x[n * inputs + i];
            }
        }
    }
    Gradients { dx, dw, dbias }
}

/// The transpose of a matrix of `rows` times `columns`: from `Conv1D`'s weight to `Linear`'s and back.
///
/// # Panics
/// When `matrix` has another size.
#[must_use]
pub fn transpose(rows: usize, columns: usize, matrix: &[f64]) -> Vec<f64> {
    assert_eq!(matrix.len(), rows * columns, "values of the matrix");
    (0..rows * columns).map(|index| matrix[index % rows * columns + index / rows]).collect()
}

//! The element-wise part of an LSTM cell. Gates are `[rows, 4·hidden]`, in `PyTorch`'s order `i`, `f`, `g`, `o`; states are
//! `[rows, hidden]`.

use super::activation::sigmoid;

/// `(cell, output)`: `cell = σ(f)·before + σ(i)·tanh(g)`, `output = σ(o)·tanh(cell)`.
#[must_use]
pub fn forward(gates: &[f64], before: &[f64], hidden: usize) -> (Vec<f64>, Vec<f64>) {
    let value = |(index, before): (usize, &f64)| {
        let [i, f, g, o] = gates_at(gates, index, hidden);
        let cell = sigmoid(f) * before + sigmoid(i) * g.tanh();
        (cell, sigmoid(o) * cell.tanh())
    };
    before.iter().enumerate().map(value).unzip()
}

/// `(dgates, dbefore)` from the gradients of the cell state and the output.
#[must_use]
pub fn backward(gates: &[f64], before: &[f64], hidden: usize, [dcell, doutput]: [&[f64]; 2]) -> (Vec<f64>, Vec<f64>) {
    let (cell, _) = forward(gates, before, hidden);
    let (mut dgates, mut dbefore) = (vec![0.0; gates.len()], vec![0.0; before.len()]);
    let slope = |x: f64| sigmoid(x) * sigmoid(-x);
    for index in 0..before.len() {
        let [i, f, g, o] = gates_at(gates, index, hidden);
        let dcell = dcell[index] + doutput[index] * sigmoid(o) * (1.0 - cell[index].tanh().powi(2));
        let gradients = [
            dcell * g.tanh() * slope(i),
            dcell * before[index] * slope(f),
            dcell * sigmoid(i) * (1.0 - g.tanh().powi(2)),
            doutput[index] * cell[index].tanh() * slope(o),
        ];
        for (gate, gradient) in gradients.into_iter().enumerate() {
            dgates[place(index, gate, hidden)] = gradient;
        }
        dbefore[index] = dcell * sigmoid(f);
    }
    (dgates, dbefore)
}

fn gates_at(gates: &[f64], index: usize, hidden: usize) -> [f64; 4] {
    [0, 1, 2, 3].map(|gate| gates[place(index, gate, hidden)])
}

fn place(index: usize, gate: usize, hidden: usize) -> usize {
    index / hidden * 4 * hidden + gate * hidden + index % hidden
}

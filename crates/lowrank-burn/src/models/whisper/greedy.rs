//! The likeliest token, one after the other.

use burn::tensor::{Int, Tensor, TensorData};
use lowrank::Result;

use super::{Generated, Generation, Whisper};

/// The text of every row of `heard`. A row that has come to its end is not computed any further.
pub(super) fn search(whisper: &Whisper, heard: &Tensor<3>, generation: &Generation) -> Result<Vec<Generated>> {
    let mut texts = vec![Generated::default(); heard.dims()[0]];
    let mut open: Vec<usize> = (0..texts.len()).collect();
    let mut cache = whisper.model.decoder.begin(heard);
    let mut tokens = generation.prompt.repeat(open.len());
    for said in 0..generation.room() {
        let rows = whisper.next(&tokens, open.len(), &mut cache)?;
        let (mut going, mut places) = (Vec::new(), Vec::new());
        tokens.clear();
        for (place, (row, log_probs)) in open.iter().zip(rows).enumerate() {
            let (token, log_prob) = likeliest(generation, said, log_probs);
            if generation.ends.contains(&token) {
                continue;
            }
            texts[*row].tokens.push(token);
            texts[*row].log_probs.push(log_prob);
            tokens.push(token);
            going.push(*row);
            places.push(place);
        }
        if going.is_empty() {
            break;
        }
        if going.len() < open.len() {
            cache = cache.of_rows(&rows_of(&places, heard));
        }
        open = going;
    }
    Ok(texts)
}

/// The first of the likeliest tokens that may be said.
fn likeliest(generation: &Generation, said: usize, mut log_probs: Vec<f32>) -> (u32, f32) {
    generation.suppress(said, &mut log_probs);
    let mut best = (0, f32::NEG_INFINITY);
    for (token, log_prob) in (0..).zip(log_probs) {
        if log_prob > best.1 {
            best = (token, log_prob);
        }
    }
    best
}

/// Places in a batch as a tensor.
pub(super) fn rows_of(places: &[usize], heard: &Tensor<3>) -> Tensor<1, Int> {
    let places: Vec<i64> = places.iter().map(|place| i64::try_from(*place).unwrap_or(i64::MAX)).collect();
    let shape = [places.len()];
    Tensor::from_data(TensorData::new(places, shape), &heard.device())
}

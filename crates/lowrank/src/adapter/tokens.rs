//! Single rows of an embedding with values of their own: `trainable_token_indices`.
//!
//! What trains is not a delta but the new rows themselves, `(rows, dim)`, in the order of the configuration's list: with
//! `i_0, i_1, ..` that list, row `i_n` of the weight becomes row `n` of the tensor. PEFT has it so that an embedding that is made
//! longer, and filled with random values, by the next user gives the same model.

use super::state_dict::StateDict;
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};

/// The rows of `weight`, from row `first` on and of `row_bytes` bytes each, with the new ones among them.
pub(crate) fn replace(weight: &mut [u8], first: usize, row_bytes: usize, indices: &[usize], rows: &[u8]) {
    for (index, row) in indices.iter().zip(rows.chunks_exact(row_bytes.max(1))) {
        let place = index.checked_sub(first).and_then(|at| weight.get_mut(at * row_bytes..(at + 1) * row_bytes));
        if let Some(place) = place {
            place.copy_from_slice(row);
        }
    }
}

/// Checks the indices against a weight of this shape, and the shape of the rows.
///
/// # Errors
/// When the weight is no matrix, when a row is not there, and when the rows have not its width.
pub(crate) fn check_fit(weight: &[usize], indices: &[usize], rows: &[usize]) -> Result<()> {
    let wrong = |problem: &str| Error::new(Subject::Merge, problem.to_owned());
    let &[height, width] = weight else {
        return Err(wrong("rows are trained of a weight that is no matrix").found(format!("{weight:?}")));
    };
    if rows != [indices.len(), width] {
        return Err(wrong("the trained rows do not fit the weight")
            .found(format!("{rows:?}"))
            .expected(format!("{:?}", [indices.len(), width]))
            .with_hint("is this the model that the adapter was trained on?"));
    }
    match indices.iter().find(|index| **index >= height) {
        Some(index) => Err(wrong("a trained row is not in the weight")
            .found(format!("row {index}"))
            .expected(format!("one below {height}"))
            .with_hint("a vocabulary that was made longer in training must be made longer in the base model first")),
        None => Ok(()),
    }
}

/// What is wrong with the trained rows of an adapter, by themselves and with its configuration.
pub(super) fn check(state: &StateDict, config: &LoraConfig) -> Vec<Error> {
    let mut errors = Vec::new();
    for (module, tensor) in &state.tokens {
        let wrong = |problem: &str| {
            Error::new(Subject::Adapter, problem.to_owned()).at(format_args!("trained rows of `{module}`"))
        };
        let indices = config.trainable_token_indices.as_ref().and_then(|tokens| tokens.of(module));
        let Some(indices) = indices else {
            errors.push(
                wrong("not in `trainable_token_indices`").with_hint(
                    "the configuration is that of another adapter: PEFT leaves the rows out without the key",
                ),
            );
            continue;
        };
        match tensor.shape() {
            [rows, dim] if *rows == indices.len() && *dim > 0 => {}
            shape => errors.push(
                wrong("another number of rows than `trainable_token_indices` has")
                    .found(format!("{shape:?}"))
                    .expected(format!("({}, dim)", indices.len())),
            ),
        }
        if tensor.float().is_none() {
            errors.push(wrong("the wrong type").found(tensor.dtype()).expected("F32, F64, F16 or BF16"));
        }
        if state.modules.contains_key(module) || state.saved.contains_key(&format!("{module}.weight")) {
            errors.push(
                wrong("the module has factors, or is saved in full, as well")
                    .with_hint("merge the adapter with PEFT's `merge_and_unload`"),
            );
        }
    }
    if config.trainable_token_indices.is_some() && state.tokens.is_empty() {
        errors.push(
            Error::new(Subject::Adapter, "there are no trained rows")
                .expected("`token_adapter.trainable_tokens_delta`, with `trainable_token_indices`")
                .with_hint("the file is incomplete: save the adapter again"),
        );
    }
    errors
}

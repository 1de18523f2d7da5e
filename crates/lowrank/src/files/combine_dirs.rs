//! Combining the adapters of several directories into that of a new one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::adapter_dir::{self, Adapter, CONFIG};
use super::read::{exists, list};
use crate::adapter::combine::{Combination, Combined, Source, combine_adapters};
use crate::error::{Error, Result, Subject};

/// Reads `adapters`, combines them with their `weights` as [`combine_adapters`] does, and writes the result to the
/// directory `output`, with a model card. With `force` an adapter that is there is replaced, which may be one of `adapters`.
///
/// `progress` is told each module, how many are done, and how many there are.
///
/// # Errors
/// When there is not one weight for each adapter; when `output` exists and may not be replaced; when an adapter cannot be
/// read; as [`combine_adapters`], and as [`adapter_dir::write`].
pub fn combine_dirs(
    adapters: &[PathBuf],
    weights: &[f64],
    how: &Combination,
    output: &Path,
    force: bool,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Combined> {
    if weights.len() != adapters.len() {
        return Err(Error::new(Subject::Config, "every adapter needs a weight")
            .found(weights.len())
            .expected(adapters.len())
            .with_hint("name the weights in the order of the adapters: 0.7,0.3, or 1,-1 to subtract the second"));
    }
    how.check()?;
    check_output(output, force)?;
    let read: Vec<Adapter> = adapters.iter().map(|dir| adapter_dir::read(dir)).collect::<Result<_>>()?;
    let names: Vec<String> = adapters.iter().map(|dir| dir.display().to_string()).collect();
    let sources = read.iter().zip(&names).zip(weights);
    let sources =
        sources.map(|((Adapter { config, state, .. }, name), weight)| Source { name, config, state, weight: *weight });
    let sources: Vec<Source<'_>> = sources.collect();
    let mut combined = combine_adapters(&sources, how, progress)?;
    adapter_dir::write(output, &combined.config, &combined.state, Some(&card(&sources, how, &combined)))?;
    let unusual = read
        .into_iter()
        .zip(&names)
        .flat_map(|(adapter, name)| adapter.warnings.into_iter().map(move |warning| format!("{name}: {warning}")));
    combined.warnings.extend(unusual);
    Ok(combined)
}

/// Whether `output` may be written at all, before the work begins.
pub(super) fn check_output(output: &Path, force: bool) -> Result<()> {
    let refuse = |problem: &str| Error::new(Subject::File, problem.to_owned()).at(output.display());
    if !exists(output) {
        return Ok(());
    }
    if !force {
        return Err(
            refuse("the output is there already").with_hint("choose another name, or replace it with `--force`")
        );
    }
    if !output.is_dir() || !(exists(&output.join(CONFIG)) || list(output)?.is_empty()) {
        return Err(refuse("the output is there, and is not an adapter")
            .expected(format!("a new folder, or one with {CONFIG}"))
            .with_hint("choose another output"));
    }
    Ok(())
}

/// The result's `README.md`.
fn card(sources: &[Source<'_>], how: &Combination, combined: &Combined) -> String {
    let base = combined.config.base_model_name_or_path.as_deref().filter(|base| !base.is_empty());
    let base = base.map(|base| format!("base_model: {base}\n")).unwrap_or_default();
    let mut card = format!("---\nlibrary_name: peft\n{base}tags:\n- lora\n---\n\n# LoRA adapter\n\n");
    let density = how.density.map(|density| format!(" at a density of {density}")).unwrap_or_default();
    let seed = how.density.and(how.seed).map(|seed| format!(", seed {seed}")).unwrap_or_default();
    let _ = writeln!(card, "Combined by `lowrank combine` with `{}`{density}{seed}.\n", how.combination_type);
    card += "| adapter | weight |\n|---|---|\n";
    for Source { name, weight, .. } in sources {
        let _ = writeln!(card, "| {name} | {weight} |");
    }
    card
}

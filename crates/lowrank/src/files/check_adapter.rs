//! Whether an adapter fits a base model, and everything that does not.

use std::path::Path;

use super::adapter_dir;
use super::checkpoint::Checkpoint;
use super::merge_plan::{Change, plan, weight, weight_of_module};
use crate::adapter::infer::infer_layer;
use crate::adapter::{GroupMode, LayerKind};
use crate::config::{LoraConfig, Patterns};
use crate::error::{Error, Result, Subject};

/// What a check found.
#[derive(Debug, Default)]
pub struct Check {
    /// Everything that is wrong; the adapter fits when there is nothing.
    pub problems: Vec<Error>,
    /// What is odd and stops nothing.
    pub warnings: Vec<String>,
    /// The modules that fit, by path.
    pub modules: Vec<CheckedModule>,
    /// Tensors of the base that the adapter replaces.
    pub replaced: Vec<String>,
    /// Tensors of the base of which the adapter replaces rows.
    pub rows: Vec<String>,
}

/// A module that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedModule {
    /// The path of the module.
    pub path: String,
    /// What the base has there.
    pub kind: LayerKind,
    /// Groups of the convolution.
    pub groups: usize,
    /// The rank.
    pub rank: usize,
}

/// Checks the adapter in the directory `adapter` against the model `base`: that it is complete and belongs together, that
/// the base has every module and parameter of it, in a shape, kind and number of groups that it fits, that its deltas have
/// a place in the weight, and that all its values are finite. Of the base, only headers are read.
///
/// # Errors
/// When `base` or `adapter` cannot be read at all. What is wrong with the adapter is no error but in [`Check::problems`].
pub fn check_adapter(base: &Path, adapter: &Path) -> Result<Check> {
    let model = Checkpoint::open(base)?;
    let mut check = Check::default();
    let adapter = match adapter_dir::read(adapter) {
        Ok(adapter) => adapter,
        Err(error) if error.subject() == Subject::File => return Err(error),
        Err(error) => {
            check.problems.extend(error.into_parts());
            return Ok(check);
        }
    };
    check.warnings.clone_from(&adapter.warnings);
    let (config, state) = (&adapter.config, &adapter.state);
    check.add(state.check(config));
    match plan(&model, &adapter) {
        Err(error) => check.add(Err(error)),
        Ok(changes) => {
            let replaced = changes.iter().filter(|(_, Change { replaced, .. })| *replaced);
            check.replaced = replaced.map(|(name, _)| name.clone()).collect();
            let rows = changes.iter().filter(|(_, change)| change.tokens.is_some());
            check.rows = rows.map(|(name, _)| name.clone()).collect();
        }
    }
    for (path, tensors) in &state.modules {
        let Ok(Some((_, shape))) = weight(&model, &weight_of_module(&model, path)) else { continue };
        let Ok(layer) = infer_layer(&shape, tensors, path, config) else { continue };
        let factors = state.factors(path, &layer, config);
        let fits = factors.and_then(|factors| match factors.mode() {
            GroupMode::Dense => {
                factors.to_per_group().map(|_| ()).map_err(|error| error.at(format_args!("module `{path}`")))
            }
            _ => Ok(()),
        });
        let (kind, groups, rank) = (layer.kind(), layer.groups(), tensors.rank());
        if rank > layer.max_rank().saturating_mul(groups) {
            let most = layer.max_rank() * groups;
            check.warnings.push(format!("{path}: rank {rank} is more than the weight can use, which is {most}"));
        }
        match fits {
            Ok(()) => check.modules.push(CheckedModule { path: path.clone(), kind, groups, rank }),
            Err(error) => check.add(Err(error)),
        }
    }
    check.warnings.extend(idle_targets(config, &state.modules.keys().collect::<Vec<_>>()));
    Ok(check)
}

impl Check {
    fn add(&mut self, done: Result<()>) {
        self.problems.extend(done.err().into_iter().flat_map(Error::into_parts));
    }
}

/// The names in `target_modules` that no module of the adapter has.
fn idle_targets(config: &LoraConfig, paths: &[&String]) -> Vec<String> {
    let Some(Patterns::List(names)) = &config.target_modules else { return Vec::new() };
    let idle =
        names.iter().filter(|name| !paths.iter().any(|path| path == name || path.ends_with(&format!(".{name}"))));
    idle.map(|name| format!("target_modules: `{name}` is the name of no module that the adapter has")).collect()
}

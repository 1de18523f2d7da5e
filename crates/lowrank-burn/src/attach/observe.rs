//! What the modules of an adapter read on training data, for the initialisations that begin from it.

use std::collections::{BTreeMap, HashMap};

use lowrank::adapter::LayerKind;
use lowrank::config::{LoraConfig, Patterns};
use lowrank::init::{Candidate, Eva, Moments, ranks};
use lowrank::target::Target;
use lowrank::{Error, Result, Subject};

use super::{Adapters, Role};

/// What the inputs of modules look like, by path.
#[derive(Debug, Clone, Default)]
pub struct Inputs(BTreeMap<String, Moments>);

impl Inputs {
    /// The inputs of a module.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Moments> {
        self.0.get(path)
    }
}

impl Adapters {
    /// Runs the model in `work`, with all adapters off, and sums up what the modules of the adapter `name` read meanwhile.
    /// Embeddings, whose inputs are numbers of rows, are left out.
    ///
    /// # Errors
    /// When there is no adapter of that name, `work` fails, or a module read nothing: `work` does not reach it, or it is a
    /// stock layer of Burn's, which tells nobody.
    pub fn observe(&self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<Inputs> {
        let entry = self.entry(name)?;
        let observed: Vec<_> = entry
            .resolution
            .targets
            .iter()
            .filter(|target| target.layer.kind() != LayerKind::Embedding)
            .filter_map(|target| {
                let a = entry.parts.iter().find(|part| part.role == Role::A(target.path.clone()))?;
                Some((a.id, target))
            })
            .collect();
        let moments = |target: &Target| Moments::new(&target.layer, target.mode);
        let transposed = observed.iter().filter(|(_, target)| target.layer.kind().is_conv_transpose());
        Error::all(transposed.map(|(_, target)| not_summed(&target.path)).collect())?;
        let begun: HashMap<_, _> = observed.iter().map(|(id, target)| (*id, moments(target))).collect();
        let (done, seen) = self.control.with(
            |state| &mut state.observed,
            Some(begun),
            || (work(), self.control.write().observed.take()),
        );
        done?;
        let mut seen = seen.unwrap_or_default();
        let mut inputs = BTreeMap::new();
        let mut errors = Vec::new();
        for (id, target) in observed {
            match seen.remove(&id).filter(|moments| moments.count() > 0.0) {
                Some(moments) => {
                    inputs.insert(target.path.clone(), moments);
                }
                None => errors.push(unseen(&target.path)),
            }
        }
        Error::all(errors)?;
        Ok(Inputs(inputs))
    }

    /// The configuration of an adapter with its ranks where its inputs vary most, as PEFT shares them out with `"eva"`:
    /// every module by its path in `rank_pattern`, and in `alpha_pattern` when `adjust_scaling_factors` says so; modules that end
    /// without a rank are no targets any more.
    ///
    /// # Errors
    /// When there is no adapter of that name, or inputs cannot be decomposed.
    pub fn redistributed(&self, name: &str, inputs: &Inputs, eva: &Eva) -> Result<LoraConfig> {
        let entry = self.entry(name)?;
        let targets = &entry.resolution.targets;
        let known: Vec<(usize, &Moments)> =
            targets.iter().enumerate().filter_map(|(at, target)| Some((at, inputs.get(&target.path)?))).collect();
        let candidates: Vec<_> = known.iter().map(|(at, moments)| candidate(&targets[*at], moments)).collect();
        let mut shared: Vec<usize> = targets.iter().map(|target| target.rank).collect();
        for ((at, _), rank) in known.iter().zip(ranks(&candidates, eva.rho)?) {
            shared[*at] = rank;
        }
        let mut kept: Vec<(&Target, usize)> = targets.iter().zip(shared).filter(|(_, rank)| *rank > 0).collect();
        // The first key that matches counts, and a path also matches those that end with it.
        kept.sort_by_key(|(target, _)| std::cmp::Reverse(target.path.len()));
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let alpha = |target: &Target, rank: usize| {
            if eva.adjust_scaling_factors { target.alpha * rank as f64 / target.rank as f64 } else { target.alpha }
        };
        Ok(LoraConfig {
            target_modules: Some(Patterns::List(kept.iter().map(|(target, _)| target.path.clone()).collect())),
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: kept.iter().map(|(target, rank)| (target.path.clone(), *rank)).collect(),
            alpha_pattern: kept.iter().map(|(target, rank)| (target.path.clone(), alpha(target, *rank))).collect(),
            ..entry.config.clone()
        })
    }
}

fn candidate<'a>(target: &Target, moments: &'a Moments) -> Candidate<'a> {
    let blocks = moments.blocks();
    let rows = target.layer.out_features() / blocks;
    Candidate { rank: target.rank, most: rows.min(moments.rows()) * blocks, moments }
}

fn not_summed(path: &str) -> Error {
    Error::new(Subject::Adapter, "the inputs of a transposed convolution are not summed up")
        .at(path)
        .with_hint("leave it out of target_modules, or begin with another init_lora_weights than \"eva\" and \"corda\"")
}

fn unseen(path: &str) -> Error {
    Error::new(Subject::Adapter, "its inputs were not seen").at(path).with_hint(
        "run the model in `work`, and use the layers of `lowrank_burn::nn` in it: same fields, same weights as Burn's",
    )
}

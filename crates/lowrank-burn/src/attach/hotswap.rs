//! Other values for an adapter that is on a model already.

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::Tensor;
use lowrank::adapter::state_dict::StateDict;
use lowrank::config::LoraConfig;
use lowrank::files::adapter_dir;
use lowrank::target::{Resolution, Target};
use lowrank::{Error, Result, Subject};

use super::build::Changes;
use super::{Adapters, Part, Source, files};
use crate::adapter::Change;

impl Adapters {
    /// Gives an adapter the values of a PEFT directory, of whatever rank, as PEFT's `hotswap_adapter`.
    ///
    /// The adapter stays as active and scaled as it is, its parameters keep their identity, and nothing of the base is
    /// read, copied or allocated (but for the norms of `DoRA` of a module that the file lacks). A module or trained
    /// parameter that the file lacks is left without effect. Training goes on from the new values; an optimiser that holds
    /// moments of another rank has to begin anew.
    ///
    /// PEFT fills what the file lacks with zeros, with `DoRA` the magnitudes too, which silences the layer; it cannot go to
    /// a smaller rank on `Conv1d` and `Conv3d`; and it compares four of the keys below.
    ///
    /// ```
    /// # use burn::nn::conv::Conv1dConfig;
    /// # use burn::tensor::Device;
    /// # use lowrank::config::{LoraConfig, Patterns};
    /// # use lowrank_burn::{attach, nn};
    /// # #[derive(burn::module::Module, Debug)]
    /// # struct Net { encoder: nn::Conv1d }
    /// # let device = Device::flex();
    /// # let base = Net { encoder: nn::Conv1d::new(&Conv1dConfig::new(6, 64, 5), &device) };
    /// # let target_modules = Some(Patterns::List(vec!["encoder".into()]));
    /// # let config = LoraConfig { r: 8, target_modules, ..LoraConfig::default() };
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let dir = folder.path().join("small");
    /// # let (small, small_adapters) = attach(base.clone(), &LoraConfig { r: 2, ..config.clone() }, 0)?;
    /// # small_adapters.save(&small, "default", &dir, None)?;
    /// let (net, mut adapters) = attach(base, &config, 0)?;
    /// let net = adapters.hotswap(net, "default", &dir)?; // of rank 2
    /// assert_eq!(adapters.config("default")?.r, 2);
    /// assert_eq!(adapters.trainable_parameters(&net).trainable, 2 * (6 * 5 + 64));
    /// # Ok::<(), lowrank::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there is no adapter of that name, or it is merged; when `use_rslora`, `lora_dropout`, `alpha_pattern`,
    /// `use_dora`, `lora_bias`, `bias`, `trainable_token_indices` or `modules_to_save` differ; and as [`Adapters::load`]. Nothing has changed then: a
    /// clone of the model, which shares its tensors, goes on as before.
    pub fn hotswap<M: Module>(&mut self, model: M, name: &str, dir: &Path) -> Result<M> {
        let adapter = adapter_dir::read(dir)?;
        self.swap(model, name, &adapter.config, &adapter.state).map_err(|error| error.at(dir.display()))
    }

    fn swap<M: Module>(&mut self, model: M, name: &str, config: &LoraConfig, state: &StateDict) -> Result<M> {
        let entry = self.entry(name)?;
        self.check_not_merged(name, "swapping it")?;
        check_compatible(&entry.config, config)?;
        let survey = entry.survey.clone();
        let resolution = resized(&entry.resolution, config)?;
        let (changes, mut parts, kept) =
            self.build(&model, name, config, &survey, &resolution, &Source::Swap(state))?;
        files::all_used(state, &resolution, &parts, &kept)?;
        let changes = with_identities(changes, &mut parts, &self.entry(name)?.parts);

        let mut all = self.present(&model);
        all.retain(|(_, change)| change.adapter() != name);
        all.extend(changes.clone());
        let model = self.reattach(model, all);
        if let Some(entry) = self.entries.get_mut(name) {
            *entry = super::Entry { config: config.clone(), resolution, survey, parts, changes, kept };
        }
        Ok(model)
    }
}

/// What decides which parameters an adapter has and what PEFT does not swap must be the same.
fn check_compatible(old: &LoraConfig, new: &LoraConfig) -> Result<()> {
    fn differ<T: PartialEq + Debug>(key: &str, [old, new]: [T; 2]) -> Option<Error> {
        let error = Error::new(Subject::Config, format!("configs are incompatible: `{key}`"));
        (old != new).then(|| error.found(format!("{new:?}")).expected(format!("{old:?}, as in the adapter in place")))
    }
    let both = [old, new];
    let errors = [
        differ("use_rslora", both.map(|config| config.use_rslora)),
        differ("lora_dropout", both.map(|config| config.lora_dropout)),
        differ("alpha_pattern", both.map(|config| &config.alpha_pattern)),
        differ("use_dora", both.map(|config| config.use_dora)),
        differ("lora_bias", both.map(|config| config.lora_bias)),
        differ("bias", both.map(|config| config.bias)),
        differ("trainable_token_indices", both.map(|config| &config.trainable_token_indices)),
        differ("modules_to_save", both.map(|config| config.modules_to_save.as_deref().unwrap_or_default())),
    ];
    Error::all(errors.into_iter().flatten().collect())
        .map_err(|error| error.with_hint("load it under a name of its own instead"))
}

/// The same modules at the ranks and scales of another configuration.
fn resized(resolution: &Resolution, config: &LoraConfig) -> Result<Resolution> {
    let resized = |target: &Target| {
        let path = &target.path;
        let (rank, alpha) = (config.rank_for(path)?, config.alpha_for(path)?);
        Ok(Target { rank, alpha, scale: config.scaling(alpha, rank), ..target.clone() })
    };
    let targets = resolution.targets.iter().map(resized).collect::<Result<_>>()?;
    Ok(Resolution { targets, ..resolution.clone() })
}

/// New parts and changes under the identities of the old ones.
fn with_identities(changes: Changes, parts: &mut [Part], old: &[Part]) -> Changes {
    let mut ids = HashMap::new();
    for part in parts {
        if let Some(old) = old.iter().find(|old| old.role == part.role) {
            ids.insert(part.id, old.id);
            part.id = old.id;
        }
    }
    let mut identities = Identities(ids);
    changes.into_iter().map(|(base, change): (ParamId, Change)| (base, change.map(&mut identities))).collect()
}

struct Identities(HashMap<ParamId, ParamId>);

impl ModuleMapper for Identities {
    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if let Some(id) = self.0.get(&param.id) {
            param.id = *id;
        }
        param
    }
}

//! Which adapters are in force, how strongly, and for which samples.

use lowrank::{Error, Result, Subject};

use super::{Adapters, Entry};
use crate::adapter::{BASE, Mixed};

impl Adapters {
    /// Makes these adapters the active ones; their changes add up, and one with `DoRA` multiplies what is there by then.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn set_active(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.entry(name)?;
        }
        self.control.write().active = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(())
    }

    /// The active adapters, in the order in which they are applied.
    #[must_use]
    pub fn active(&self) -> Vec<String> {
        self.control.read().active.clone()
    }

    /// Switches all adapters on or off; off, the model computes exactly what its base does, also where adapters are
    /// merged into it: the layers read what the base was before, which PEFT unmerges the model for.
    pub fn set_enabled(&self, enabled: bool) {
        self.control.write().enabled = enabled;
    }

    /// Runs `work` with all adapters off (PEFT's `disable_adapter`); what was set before is set again afterwards, also
    /// when `work` panics.
    pub fn disabled<T>(&self, work: impl FnOnce() -> T) -> T {
        self.control.with(|state| &mut state.enabled, false, work)
    }

    /// Scales an adapter by `factor` beside its own scale; 1 is what it was trained with (PEFT's `set_scale`).
    ///
    /// A merged adapter stays in the base at the scale it was merged with.
    ///
    /// # Errors
    /// When there is no adapter of that name, or the factor is not finite.
    pub fn set_scale(&self, name: &str, factor: f32) -> Result<()> {
        self.entry(name)?;
        check_factor(factor)?;
        self.control.write().multipliers.insert(name.to_owned(), factor);
        Ok(())
    }

    /// The factor an adapter is scaled by beside its own scale.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn scale(&self, name: &str) -> Result<f32> {
        self.entry(name)?;
        Ok(self.control.read().multiplier(name))
    }

    /// Scales the active adapters by `factor`, beside what they are scaled by already (PEFT's `scale_layer`).
    ///
    /// # Errors
    /// When the factor is not finite.
    pub fn scale_active(&self, factor: f32) -> Result<()> {
        check_factor(factor)?;
        let mut state = self.control.write();
        for name in state.active.clone() {
            *state.multipliers.entry(name).or_insert(1.0) *= factor;
        }
        Ok(())
    }

    /// Takes a factor out of the scale of the active adapters again, or with `None` every factor: they have their own
    /// scale then (PEFT's `unscale_layer`).
    ///
    /// # Errors
    /// When the factor is zero or not finite.
    pub fn unscale_active(&self, factor: Option<f32>) -> Result<()> {
        if let Some(factor) = factor {
            check_factor(factor)?;
            if factor == 0.0 {
                return Err(Error::new(Subject::Adapter, "what was scaled by 0 cannot be scaled back")
                    .with_hint("`None` gives the active adapters their own scale"));
            }
        }
        let mut state = self.control.write();
        for name in state.active.clone() {
            let multiplier = state.multipliers.entry(name).or_insert(1.0);
            *multiplier = factor.map_or(1.0, |factor| *multiplier / factor);
        }
        Ok(())
    }

    /// Runs `work` with all adapters scaled by `multiplier` beside what they are scaled by already (PEFT's
    /// `rescale_adapter_scale`); within another such scope, by both. It ends with `work`, also when that panics.
    ///
    /// # Errors
    /// When the multiplier is not finite.
    pub fn rescaled<T>(&self, multiplier: f32, work: impl FnOnce() -> T) -> Result<T> {
        check_factor(multiplier)?;
        let before = self.control.read().rescaled;
        Ok(self.control.with(|state| &mut state.rescaled, before * multiplier, work))
    }

    /// Runs the model in `work` on a batch in which every sample has an adapter of its own, or with `"__base__"` none
    /// (PEFT's `adapter_names`): the output of each is that of a run with its adapter alone.
    ///
    /// The first axis of what the adapted layers read must be that of the samples. A layer folds the weight of each
    /// adapter once and computes its samples with it, wherever they stand in the batch; where they stand together,
    /// nothing but the output is copied. `DoRA`, `modules_to_save`, trained biases and dropout work as in single runs, in
    /// training too, and gradients reach every adapter from its own samples. PEFT computes the base of the whole batch and
    /// adds each adapter's path to a part of it, in evaluation only and without `DoRA`.
    ///
    /// The adapters need not be active, and the active ones play no part. While adapters are disabled every sample sees
    /// the base.
    ///
    /// ```
    /// # use burn::nn::conv::Conv1dConfig;
    /// # use burn::tensor::{Device, Tensor};
    /// # use lowrank::config::{InitLoraWeights, LoraConfig, Patterns};
    /// # use lowrank_burn::{Adapters, nn};
    /// # #[derive(burn::module::Module, Debug)]
    /// # struct Net { encoder: nn::Conv1d }
    /// # let device = Device::flex();
    /// let net = Net { encoder: nn::Conv1d::new(&Conv1dConfig::new(6, 64, 5), &device) };
    /// let target_modules = Some(Patterns::List(vec!["encoder".into()]));
    /// let config = LoraConfig { target_modules, init_lora_weights: InitLoraWeights::False, ..LoraConfig::default() };
    /// let mut adapters = Adapters::default();
    /// let net = adapters.attach(net, "anna", &config, 0)?;
    /// let net = adapters.attach(net, "ben", &config, 1)?;
    ///
    /// let x = Tensor::ones([3, 6, 32], &device);
    /// let y = adapters.mixed(&["anna", "__base__", "ben"], || net.encoder.forward(x.clone()))?;
    /// adapters.set_active(&["ben"])?;
    /// let ben = net.encoder.forward(x).narrow(0, 2, 1);
    /// let difference: f32 = (y.narrow(0, 2, 1) - ben).abs().max().into_scalar();
    /// assert!(difference < 1e-5);
    /// # Ok::<(), lowrank::Error>(())
    /// ```
    ///
    /// # Errors
    /// When an adapter does not exist, or one is merged into the base. When a layer that one of these adapters changes
    /// was reached and reads another number of samples, or is not one of [`crate::nn`] and so has one weight for the
    /// whole batch; the error names the module, and the output of `work` is dropped.
    pub fn mixed<T>(&self, samples: &[&str], work: impl FnOnce() -> T) -> Result<T> {
        let mut names: Vec<&str> = samples.iter().copied().filter(|name| *name != BASE).collect();
        names.sort_unstable();
        names.dedup();
        Error::all(names.into_iter().filter_map(|name| self.entry(name).err()).collect())?;
        if let [first, ..] = self.merged.as_slice() {
            return Err(Error::new(Subject::Adapter, "a mixed batch needs a base with nothing merged into it")
                .found(format!("adapter `{}` in it", first.name))
                .with_hint("unmerge first"));
        }
        let mixed = std::sync::Arc::new(Mixed::new(samples));
        let (result, refused) = self.control.with(
            |state| &mut state.refused,
            None,
            || {
                let result = self.control.with(|state| &mut state.mixed, Some(mixed), work);
                (result, self.control.write().refused.take())
            },
        );
        match refused {
            None => Ok(result),
            Some((param, error)) => {
                let place = self.entries.values().find_map(|entry| entry.place(param));
                Err(error.at(place.unwrap_or("a layer")))
            }
        }
    }
}

impl Entry {
    /// The module of a base parameter that the adapter changes, or the parameter's own name.
    fn place(&self, param: burn::module::ParamId) -> Option<&str> {
        let owner = self.survey.params().find(|(_, site)| site.id == param).map(|(module, _)| module.path.as_str())?;
        self.changes.iter().any(|(base, _)| *base == param).then_some(owner)
    }
}

fn check_factor(factor: f32) -> Result<()> {
    if factor.is_finite() {
        return Ok(());
    }
    Err(Error::new(Subject::Adapter, "not a factor").found(factor).expected("a finite number"))
}

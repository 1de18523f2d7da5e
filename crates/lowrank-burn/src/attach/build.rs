//! From a configuration and the modules it matched to the changes on each parameter.

use burn::module::{Param, ParamId};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor, TensorData};
use lowrank::adapter::{Factors, GroupMode, LayerKind, Magnitude};
use lowrank::config::{Bias, InitLoraWeights, LoraConfig};
use lowrank::init::{Decomposition, Init, decompose, from_covariance, from_gradient, from_inputs, initialise};
use lowrank::random::Random;
use lowrank::target::{Resolution, Target};
use lowrank::{Error, Result, Subject};

use super::{Knowledge, Part, Role, Source};
use crate::adapter::{Change, LowRank, Replace, Rows, Shift, Start};
use crate::survey::{ModuleSite, ParamSite, Survey};
use crate::values::Values;

/// Changes, each with the parameter it sits on.
pub(super) type Changes = Vec<(ParamId, Change)>;

/// Everything the parts of an adapter are made from.
pub(super) struct Builder<'a> {
    pub name: &'a str,
    pub config: &'a LoraConfig,
    pub survey: &'a Survey,
    pub device: &'a Device,
    pub source: &'a Source<'a>,
    /// The base's own values of some parameters.
    pub base: &'a dyn Fn(&[ParamId]) -> Values,
}

impl Builder<'_> {
    pub fn build(&self, resolution: &Resolution) -> Result<(Changes, Vec<Part>)> {
        let saved = self.saved(resolution);
        let mut base = (self.base)(&saved.iter().map(|(_, param, _)| param.id).collect::<Vec<_>>());
        let replaced = saved.into_iter().map(|(site, param, trains)| {
            let own = base.remove(&param.id).unwrap_or_default();
            self.replace(site, param, own, trains)
        });
        let replaced: Vec<_> = replaced.collect();
        let adapted = resolution.targets.iter().map(|target| self.low_rank(target));

        let rows = resolution.token_indices.iter().map(|(path, indices)| self.rows(path, indices));

        let (mut changes, mut parts, mut errors) = (Changes::new(), Vec::new(), Vec::new());
        for made in replaced.into_iter().chain(adapted).chain(rows) {
            match made {
                Ok((new_changes, new_parts)) => {
                    changes.extend(new_changes);
                    parts.extend(new_parts);
                }
                Err(error) => errors.push(error),
            }
        }
        Error::all(errors)?;
        Ok((changes, parts))
    }

    /// The factors of one module.
    fn low_rank(&self, target: &Target) -> Result<(Changes, Vec<Part>)> {
        let site = self.site(&target.path)?;
        let weight = site.weight().ok_or_else(|| missing(&target.path, "weight"))?;
        let factors = self.factors(target, weight)?;
        self.check_route(site, &factors).map_err(|error| error.at(&target.path))?;
        let (mode, rank, layer) = (factors.mode(), factors.rank(), factors.layer());
        let a = self.matrix(factors.a(), rank);
        let freezes_b = self.config.init_lora_weights == InitLoraWeights::Mica;
        let b = self.matrix(factors.b(), layer.out_features());
        let b = if freezes_b { b.set_require_grad(false) } else { b };
        let part = |id, role, shape, trains| Part { id, role, shape, trains };
        let mut parts = vec![
            part(a.id, Role::A(target.path.clone()), layer.a_shape(rank, mode), true),
            part(b.id, Role::B(target.path.clone()), layer.b_shape(rank, mode), !freezes_b),
        ];
        let start = self.start(&factors)?;
        if let Some(start) = &start {
            let (a, b) = (start.a.dims().to_vec(), start.b.dims().to_vec());
            parts.push(part(start.a.id, Role::StartA(target.path.clone()), a, false));
            parts.push(part(start.b.id, Role::StartB(target.path.clone()), b, false));
        }
        let magnitude = factors.magnitude().map(|magnitude| self.vector(&magnitude.values));
        if let Some(magnitude) = &magnitude {
            parts.push(part(magnitude.id, Role::Magnitude(target.path.clone()), layer.magnitude_shape(), true));
        }
        let low_rank = LowRank {
            a,
            b,
            start,
            magnitude,
            dropout: self.dropout(),
            adapter: self.name.to_owned(),
            layer: layer.clone(),
            mode,
            scale: factors.scale(),
            norm: self.config.dora_norm,
        };
        let mut changes = vec![(weight.id, Change::LowRank(low_rank))];
        if let Some(values) = factors.bias() {
            let bias = site.bias().ok_or_else(|| {
                Error::new(Subject::Adapter, "`lora_bias` needs a layer that has a bias").at(&target.path).with_hint(
                    "leave this module out of the targets or set lora_bias to false: PEFT would train such a bias, but \
                     could never merge it",
                )
            })?;
            let value = self.vector(values);
            parts.push(part(value.id, Role::Bias(target.path.clone()), bias.shape.clone(), true));
            let shift = Shift { value, adapter: self.name.to_owned(), scale: factors.scale() };
            changes.push((bias.id, Change::Shift(shift)));
        }
        Ok((changes, parts))
    }

    fn factors(&self, target: &Target, weight: &ParamSite) -> Result<Factors> {
        let Target { path, layer, mode, rank, scale, .. } = target;
        let (seed, knowledge) = match self.source {
            Source::New { seed, knowledge } => (*seed, *knowledge),
            Source::Swap(state) if !state.modules.contains_key(path) => return self.silent(target, weight),
            Source::State(state) | Source::Swap(state) => {
                self.check_transposed(path, layer.kind())?;
                return state.factors(path, layer, self.config);
            }
        };
        let mut random = Random::new(seed, &format!("lora {path}"), 0);
        let own = || self.own(weight);
        let factors = match beginning(&self.config.init_lora_weights, layer.kind()) {
            Beginning::Drawn(init) => initialise(layer, *mode, *rank, *scale, self.config.lora_bias, init, &mut random),
            Beginning::Decomposed(how) => decompose(layer, *mode, *rank, *scale, &own(), how, &mut random),
            Beginning::Gradient => {
                let gradient = match knowledge {
                    Knowledge::Gradients(gradients) => gradients.get(&weight.id),
                    _ => None,
                };
                let gradient = gradient.ok_or_else(|| no_gradient(path))?;
                let gradient = transpose(gradient.clone(), &weight.shape, weight.transposed);
                let config = self.config.lora_ga()?;
                from_gradient(layer, *mode, *rank, *scale, &gradient, &own(), &config, &mut random)
            }
            Beginning::Inputs(how) => {
                let inputs = match knowledge {
                    Knowledge::Inputs(inputs) => inputs.get(path),
                    _ => None,
                };
                let inputs = inputs.ok_or_else(|| no_inputs(path))?;
                match how {
                    FromInputs::Eva => from_inputs(layer, *mode, *rank, *scale, inputs, &self.config.eva()?),
                    FromInputs::Corda => {
                        from_covariance(layer, *mode, *rank, *scale, &own(), inputs, self.config.corda()?)
                    }
                }
            }
        };
        let factors = factors.map_err(|error| error.at(path))?;
        if self.config.use_dora { self.with_norms(factors, &own()) } else { Ok(factors) }
    }

    /// A file that says which of its modules are transposed convolutions has to mean the model's.
    fn check_transposed(&self, path: &str, kind: LayerKind) -> Result<()> {
        let listed = self.config.conv_transpose.iter().any(|module| module == path);
        if listed == kind.is_conv_transpose() {
            return Ok(());
        }
        let found = if listed { "one on a transposed convolution" } else { "one on another layer" };
        Err(Error::new(Subject::Adapter, "the adapter is for a layer of another kind")
            .at(path)
            .found(format!("{found} (`conv_transpose` in adapter_config.json)"))
            .expected(format!("one on {kind}"))
            .with_hint("is the adapter for another base?"))
    }

    /// Factors without an effect.
    fn silent(&self, target: &Target, weight: &ParamSite) -> Result<Factors> {
        let Target { path, layer, mode, rank, scale, .. } = target;
        let zeros = |shape: Vec<usize>| vec![0.0; shape.iter().product()];
        let (a, b) = (zeros(layer.a_shape(*rank, *mode)), zeros(layer.b_shape(*rank, *mode)));
        let bias =
            (self.config.lora_bias && layer.kind() != LayerKind::Embedding).then(|| zeros(vec![layer.out_features()]));
        let factors = Factors::new(layer.clone(), *mode, *rank, *scale, a, b, bias).map_err(|error| error.at(path))?;
        if self.config.use_dora { self.with_norms(factors, &self.own(weight)) } else { Ok(factors) }
    }

    /// The base's own values of a weight, in `PyTorch`'s orientation.
    fn own(&self, weight: &ParamSite) -> Vec<f32> {
        let own = (self.base)(&[weight.id]).remove(&weight.id).unwrap_or_default();
        transpose(own, &weight.shape, weight.transposed)
    }

    /// Whether new factors are a part of the base weight.
    fn takes(&self, factors: &Factors) -> bool {
        match beginning(&self.config.init_lora_weights, factors.layer().kind()) {
            Beginning::Drawn(_) | Beginning::Inputs(FromInputs::Eva) => false,
            Beginning::Gradient | Beginning::Inputs(FromInputs::Corda) => true,
            Beginning::Decomposed(how) => how.reduces_base(),
        }
    }

    /// What new factors take from the base weight.
    fn start(&self, factors: &Factors) -> Result<Option<Start>> {
        if !self.takes(factors) || !matches!(self.source, Source::New { .. }) {
            return Ok(None);
        }
        let factors = if factors.mode() == GroupMode::Dense { factors.to_per_group()? } else { factors.clone() };
        let a = self.matrix(factors.a(), factors.rank()).set_require_grad(false);
        let b = self.matrix(factors.b(), factors.layer().out_features()).set_require_grad(false);
        Ok(Some(Start { a, b }))
    }

    /// The factors with the magnitude that leaves their layer as it is on the base weight `own`.
    fn with_norms(&self, factors: Factors, own: &[f32]) -> Result<Factors> {
        let norm = self.config.dora_norm;
        let change = if self.takes(&factors) { factors.without_start(&factors)? } else { factors.clone() };
        #[expect(clippy::cast_possible_truncation, reason = "a magnitude is stored in single precision")]
        let values = change.norms(own, norm)?.into_iter().map(|norm| norm as f32).collect();
        factors.with_magnitude(Magnitude { values, norm })
    }

    /// Stock layers see a changed weight and nothing else, which rules out some things.
    fn check_route(&self, site: &ModuleSite, factors: &Factors) -> Result<()> {
        if site.fused {
            return Ok(());
        }
        let class = &site.class;
        let swap = format!(
            "use `lowrank_burn::nn::{class}` in the model instead of Burn's {class}: same fields, same weights"
        );
        if self.config.lora_dropout > 0.0 && !matches!(class.as_str(), "Embedding") {
            return Err(Error::new(Subject::Adapter, "`lora_dropout` cannot reach the input of a stock Burn layer")
                .with_hint(swap));
        }
        let wrong_in_burn = class == "Conv1d" && site.groups > Some(1) && site.stride > Some(1);
        if wrong_in_burn && matches!(self.source, Source::New { .. }) {
            return Err(Error::new(
                Subject::Adapter,
                "Burn 0.22.1 computes wrong gradients for a grouped Conv1d with a stride",
            )
            .with_hint(swap));
        }
        if factors.mode() == GroupMode::Dense && factors.layer().groups() > 1 {
            return Err(Error::new(
                Subject::Adapter,
                "a dense adapter on a grouped convolution does not fit its weight",
            )
            .with_hint(format!("set group_mode to \"per_group\", or {swap}")));
        }
        Ok(())
    }

    /// The base parameters that an adapter has values of its own for, and whether they are trained beside the factors: not
    /// the statistics of a norm, nor the embedding that PEFT saves along when an adapter sits on it.
    fn saved(&self, resolution: &Resolution) -> Vec<(&ModuleSite, &ParamSite, bool)> {
        let below = |path: &str, module: &String| path == module || path.starts_with(&format!("{module}."));
        let in_module = |site: &ModuleSite| resolution.modules_to_save.iter().any(|module| below(&site.path, module));
        let trains = |site: &ModuleSite, param: &ParamSite| match self.config.bias {
            _ if in_module(site) => !param.name.starts_with("running_"),
            Bias::None => false,
            // As PEFT, those of recurrent cells and attentions too.
            Bias::All => param.name.contains("bias"),
            Bias::LoraOnly => param.name == "bias" && resolution.targets.iter().any(|target| target.path == site.path),
        };
        let stored = |site: &ModuleSite, param: &ParamSite| match self.source {
            Source::New { .. } => false,
            Source::State(state) | Source::Swap(state) => state.saved.contains_key(&site.key(param)),
        };
        self.survey
            .params()
            .map(|(site, param)| (site, param, trains(site, param)))
            .filter(|&(site, param, trains)| trains || in_module(site) || stored(site, param))
            .collect()
    }

    /// A parameter with a value of the adapter's own; it starts as the base's `own` value unless a file has another.
    fn replace(
        &self,
        site: &ModuleSite,
        param: &ParamSite,
        own: Vec<f32>,
        trains: bool,
    ) -> Result<(Changes, Vec<Part>)> {
        let key = site.key(param);
        if site.own_statistics && param.name.starts_with("running_") {
            return Err(Error::new(Subject::Adapter, "the running statistics of a stock Burn norm cannot be replaced")
                .at(&key)
                .with_hint(
                    "use `lowrank_burn::nn::BatchNorm` in the model instead of Burn's: same fields, same weights",
                ));
        }
        let values = match self.source {
            Source::New { .. } => own,
            Source::Swap(state) if !state.saved.contains_key(&key) => own,
            Source::State(state) | Source::Swap(state) => {
                let tensor = state.saved.get(&key).ok_or_else(|| missing(&key, "a tensor in the adapter file"))?;
                if tensor.shape() != param.torch_shape() {
                    return Err(Error::new(Subject::Adapter, "wrong shape")
                        .at(&key)
                        .found(format!("{:?}", tensor.shape()))
                        .expected(format!("{:?}", param.torch_shape())));
                }
                let values = tensor.values().ok_or_else(|| {
                    Error::new(Subject::Adapter, "not a floating-point tensor").at(&key).found(tensor.dtype())
                })?;
                transpose(values, tensor.shape(), param.transposed)
            }
        };
        let value = self.vector(&values);
        let value = if trains { value } else { value.set_require_grad(false) };
        let part = Part { id: value.id, role: Role::Saved(key, param.transposed), shape: param.torch_shape(), trains };
        let keeps_type = site.fused && site.class != "Embedding";
        let replace = Replace { value, adapter: self.name.to_owned(), keeps_type };
        Ok((vec![(param.id, Change::Replace(replace))], vec![part]))
    }

    /// Rows of a weight that are trained themselves; they start as the base's unless a file has others.
    fn rows(&self, path: &str, indices: &[usize]) -> Result<(Changes, Vec<Part>)> {
        let weight = self.site(path)?.param("weight").ok_or_else(|| missing(path, "weight"))?;
        let &[_, dim] = weight.shape.as_slice() else { return Err(missing(path, "a matrix")) };
        let shape = vec![indices.len(), dim];
        let own = || {
            let own = (self.base)(&[weight.id]).remove(&weight.id).unwrap_or_default();
            indices.iter().flat_map(|index| &own[index * dim..(index + 1) * dim]).copied().collect()
        };
        let values = match self.source {
            Source::New { .. } => own(),
            Source::Swap(state) if !state.tokens.contains_key(path) => own(),
            Source::State(state) | Source::Swap(state) => {
                let tensor = state.tokens.get(path).ok_or_else(|| missing(path, "trained rows in the adapter file"))?;
                if tensor.shape() != shape {
                    return Err(Error::new(Subject::Adapter, "the trained rows do not fit the weight")
                        .at(path)
                        .found(format!("{:?}", tensor.shape()))
                        .expected(format!("{shape:?}")));
                }
                tensor.values().unwrap_or_default()
            }
        };
        let value = self.matrix(&values, indices.len());
        let part = Part { id: value.id, role: Role::Tokens(path.to_owned()), shape, trains: true };
        let rows = Rows { value, adapter: self.name.to_owned(), indices: indices.to_vec() };
        Ok((vec![(weight.id, Change::Rows(rows))], vec![part]))
    }

    fn site(&self, path: &str) -> Result<&ModuleSite> {
        self.survey.module(path).ok_or_else(|| missing(path, "module"))
    }

    fn dropout(&self) -> Option<Dropout> {
        (self.config.lora_dropout > 0.0).then(|| DropoutConfig::new(self.config.lora_dropout).init())
    }

    fn matrix(&self, values: &[f32], rows: usize) -> Param<Tensor<2>> {
        let columns = values.len() / rows.max(1);
        Param::from_data(TensorData::new(values.to_vec(), [rows, columns]), self.device)
    }

    fn vector(&self, values: &[f32]) -> Param<Tensor<1>> {
        Param::from_data(TensorData::new(values.to_vec(), [values.len()]), self.device)
    }
}

/// How factors begin: from random numbers, from the base weight, from the loss's gradient, or from the module's inputs.
enum Beginning {
    Drawn(Init),
    Decomposed(Decomposition),
    Gradient,
    Inputs(FromInputs),
}

/// What begins from the inputs of a module.
enum FromInputs {
    Eva,
    Corda,
}

/// As PEFT, embeddings begin as with `true` where an initialisation is not made for them.
fn beginning(init: &InitLoraWeights, kind: LayerKind) -> Beginning {
    match init {
        InitLoraWeights::False => Beginning::Drawn(Init::False),
        InitLoraWeights::Gaussian => Beginning::Drawn(Init::Gaussian),
        InitLoraWeights::Orthogonal => Beginning::Drawn(Init::Orthogonal),
        InitLoraWeights::Mica => Beginning::Decomposed(Decomposition::Mica),
        // `validate` has refused other names.
        InitLoraWeights::True | InitLoraWeights::Other(_) => Beginning::Drawn(Init::Default),
        _ if kind == LayerKind::Embedding => Beginning::Drawn(Init::Default),
        InitLoraWeights::Pissa => Beginning::Decomposed(Decomposition::Pissa),
        InitLoraWeights::PissaNiter(iterations) => Beginning::Decomposed(Decomposition::PissaNiter(*iterations)),
        InitLoraWeights::Olora => Beginning::Decomposed(Decomposition::Olora),
        InitLoraWeights::LoraGa => Beginning::Gradient,
        InitLoraWeights::Eva => Beginning::Inputs(FromInputs::Eva),
        InitLoraWeights::Corda => Beginning::Inputs(FromInputs::Corda),
    }
}

/// The values of a matrix of that shape, column by column when `transposed`.
pub(crate) fn transpose(values: Vec<f32>, shape: &[usize], transposed: bool) -> Vec<f32> {
    match (transposed, shape) {
        (true, [rows, columns]) => (0..values.len()).map(|at| values[(at % rows) * columns + at / rows]).collect(),
        _ => values,
    }
}

fn no_gradient(path: &str) -> Error {
    Error::new(Subject::Adapter, "\"lora_ga\" begins from the gradient of the loss, and there is none")
        .at(path)
        .with_hint(
            "use `Adapters::attach_with_gradients`; `lowrank train` takes the gradients of the first batches by itself",
        )
}

fn no_inputs(path: &str) -> Error {
    Error::new(Subject::Adapter, "\"eva\" and \"corda\" begin from the module's inputs, and there are none").at(path).with_hint(
        "use `Adapters::observe` and `Adapters::attach_with_inputs`; `lowrank train` shows it the first batches by itself",
    )
}

fn missing(place: &str, what: &str) -> Error {
    Error::new(Subject::Adapter, "missing").at(place).expected(what)
}

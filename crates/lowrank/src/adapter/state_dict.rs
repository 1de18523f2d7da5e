//! All tensors of one adapter, by module.

use std::collections::BTreeMap;

use super::copies;
use super::keys::{self, Key, Part};
use super::tensor::Tensor;
use super::{DoraNorm, Factors, GroupMode, Layer, Magnitude, tokens};
use crate::config::{Bias, LoraConfig};
use crate::error::{Error, Result, Subject};
use crate::float::FloatType;
use crate::suggest::nearest;

/// The names under which PEFT saves a model's embeddings along, asked or not.
const EMBEDDINGS: [&str; 2] = ["embed_tokens", "lm_head"];

/// The stored factors of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleTensors {
    /// `A`: `(r, in)`, `(r, in, k..)`, of an embedding `(r, num_embeddings)`.
    pub a: Tensor,
    /// `B`: `(out, r)`, `(out, r/groups, 1..)`, of an embedding `(embedding_dim, r)`.
    pub b: Tensor,
    /// The bias of `B`, `(out)`, with `lora_bias`.
    pub bias: Option<Tensor>,
    /// `DoRA`'s magnitude, `(out)`, of a convolution `(1, out, 1..)`.
    pub magnitude: Option<Tensor>,
    /// Whether the module is an embedding, whose tensors have other names.
    pub embedding: bool,
}

impl ModuleTensors {
    /// `factors` as they are stored, their values rounded to `float`.
    ///
    /// [`GroupMode::PerGroup`] becomes PEFT's dense form, zero where a group sees no input: PEFT's forward with it is
    /// the same. [`GroupMode::Shared`] has no form in PEFT and stays what it is.
    ///
    /// # Errors
    /// When the tensors cannot be addressed.
    pub fn from_factors(factors: &Factors, float: FloatType) -> Result<Self> {
        if factors.mode() == GroupMode::PerGroup && factors.layer().groups() > 1 {
            return Self::from_factors(&factors.to_dense()?, float);
        }
        let (layer, rank, mode) = (factors.layer(), factors.rank(), factors.mode());
        let bias = factors.bias().map(|bias| Tensor::from_values(float, vec![bias.len()], bias)).transpose()?;
        let magnitude =
            factors.magnitude().map(|m| Tensor::from_values(float, layer.magnitude_shape(), &m.values)).transpose()?;
        Ok(Self {
            a: Tensor::from_values(float, layer.a_shape(rank, mode), factors.a())?,
            b: Tensor::from_values(float, layer.b_shape(rank, mode), factors.b())?,
            bias,
            magnitude,
            embedding: layer.kind() == super::LayerKind::Embedding,
        })
    }

    /// The rank: rows of `A`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.a.shape().first().copied().unwrap_or(0)
    }

    /// The parts that are there, with their keys' ends.
    pub fn parts(&self) -> impl Iterator<Item = (Part, &Tensor)> {
        let (a, b) = if self.embedding { (Part::EmbeddingA, Part::EmbeddingB) } else { (Part::A, Part::B) };
        let bias = self.bias.as_ref().map(|bias| (Part::BBias, bias));
        let magnitude = self.magnitude.as_ref().map(|magnitude| (Part::Magnitude, magnitude));
        [Some((a, &self.a)), Some((b, &self.b)), bias, magnitude].into_iter().flatten()
    }
}

/// All tensors of one adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateDict {
    /// The factors, by the path of their module in the base model.
    pub modules: BTreeMap<String, ModuleTensors>,
    /// New values for parameters and buffers of the base model, by their path in it: those of `modules_to_save`, and
    /// biases that were trained along.
    pub saved: BTreeMap<String, Tensor>,
    /// What PEFT writes again of biases in [`Self::saved`], by its path in PEFT's model; see [`super::copies`].
    pub copies: BTreeMap<String, Tensor>,
    /// New values for single rows of weights (`trainable_token_indices`), `(rows, dim)`, by the path of their module. Which
    /// rows they are, the configuration says.
    pub tokens: BTreeMap<String, Tensor>,
}

impl StateDict {
    /// Sorts the tensors of a file by module.
    ///
    /// # Errors
    /// All of these at once: a key that is none of PEFT's, or stands for something that is not supported; half of a
    /// pair; shapes that do not belong together; a rank that is not the configuration's; integers for factors; a tensor
    /// that the configuration does not account for (PEFT would leave it out without a word); no tensor at all. `origin`
    /// is put in front of each.
    pub fn from_tensors(mut tensors: BTreeMap<String, Tensor>, config: &LoraConfig, origin: &str) -> Result<Self> {
        let copies = copies::split(&mut tensors, config).map_err(|error| error.at(origin))?;
        let (mut halves, mut saved, mut errors) = (BTreeMap::<String, Halves>::new(), BTreeMap::new(), Vec::new());
        let mut tokens = BTreeMap::new();
        for (key, tensor) in tensors {
            let twice = match keys::parse(&key) {
                Ok(Key::Factor { module, part }) => halves.entry(module).or_default().insert(part, tensor).is_some(),
                Ok(Key::Tokens { module }) => tokens.insert(module, tensor).is_some(),
                Ok(Key::Saved { parameter, wrapped }) => {
                    saved.insert(parameter, (wrapped, key.clone(), tensor)).is_some()
                }
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            if twice {
                errors.push(
                    Error::new(Subject::Adapter, "there with and without `base_model.model.`")
                        .at(format_args!("tensor `{key}`")),
                );
            }
        }
        if halves.is_empty() && saved.is_empty() && tokens.is_empty() && errors.is_empty() {
            errors.push(Error::new(Subject::Adapter, "there are no tensors").expected("the factors of an adapter"));
        }
        let mut state = Self { copies, tokens, ..Self::default() };
        let paths: Vec<String> = halves.keys().cloned().collect();
        for (path, parts) in halves {
            let owner = owner(&path, |attention| paths.iter().any(|path| path == attention));
            match module(owner, parts, config) {
                Ok(tensors) => {
                    state.modules.insert(path, tensors);
                }
                Err(error) => errors.push(error.at(format_args!("module `{path}`"))),
            }
        }
        for (parameter, (wrapped, key, tensor)) in saved {
            if state.accounts_for(&parameter, wrapped, config) {
                state.saved.insert(parameter, tensor);
            } else {
                errors.push(stranger(&key, &parameter, config));
            }
        }
        errors.extend(state.idle_conv_transpose(config));
        errors.extend(tokens::check(&state, config));
        Error::all(errors.into_iter().map(|error| error.at(origin)).collect())?;
        Ok(state)
    }

    /// The tensors with their keys, as PEFT's files have them.
    #[must_use]
    pub fn to_tensors(&self) -> BTreeMap<String, &Tensor> {
        let factors = self
            .modules
            .iter()
            .flat_map(|(path, module)| module.parts().map(move |(part, tensor)| (self.key(path, part), tensor)));
        let saved = self.saved.iter().map(|(parameter, tensor)| {
            let adapted = parameter.rsplit_once('.').is_some_and(|(module, _)| self.modules.contains_key(module));
            (keys::saved(parameter, adapted), tensor)
        });
        let copies = self.copies.iter().map(|(path, tensor)| (keys::saved(path, false), tensor));
        let tokens = self.tokens.iter().map(|(module, tensor)| (keys::tokens(module), tensor));
        factors.chain(saved).chain(copies).chain(tokens).collect()
    }

    /// Checks what can be checked without the base model: what [`Self::from_tensors`] checks, and that every value is
    /// finite.
    ///
    /// # Errors
    /// All at once, as there; and a tensor with NaN or infinite values.
    pub fn check(&self, config: &LoraConfig) -> Result<()> {
        let mut errors = Vec::new();
        for (path, module) in &self.modules {
            if let Err(error) = check_module(module, self.owner(path), config) {
                errors.push(error.at(format_args!("module `{path}`")));
            }
        }
        for parameter in self.saved.keys() {
            let wrapped = parameter.rsplit_once('.').is_some_and(|(module, _)| self.modules.contains_key(module));
            if !self.accounts_for(parameter, wrapped, config) {
                errors.push(stranger(parameter, parameter, config));
            }
        }
        errors.extend(self.idle_conv_transpose(config));
        errors.extend(tokens::check(self, config));
        for (key, tensor) in self.to_tensors() {
            let count = tensor.non_finite();
            if count > 0 {
                errors.push(
                    Error::new(Subject::Adapter, "values that are not finite")
                        .at(format_args!("tensor `{key}`"))
                        .found(format!("{count} NaN or infinite"))
                        .expected("none")
                        .with_hint(
                            "training diverged: lower the learning rate, and go back to the last good checkpoint",
                        ),
                );
            }
        }
        Error::all(errors)
    }

    /// The factors of the module at `path`, which sits on `layer`.
    ///
    /// The grouped form is read from the shapes. PEFT's dense `A` that is zero wherever it has to be is
    /// [`GroupMode::PerGroup`], with the same forward, unless the configuration says `dense`.
    ///
    /// # Errors
    /// When there is no such module (the hint has the nearest), or its tensors do not fit `layer`.
    pub fn factors(&self, path: &str, layer: &Layer, config: &LoraConfig) -> Result<Factors> {
        let Some(module) = self.modules.get(path) else {
            let error = Error::new(Subject::Adapter, format!("no adapter for module `{path}`"));
            return Err(match nearest(path, self.modules.keys().map(String::as_str)) {
                Some(near) => error.with_hint(format!("the nearest that has one is `{near}`")),
                None => error,
            });
        };
        module
            .factors(layer, config.scaling_for(self.owner(path))?, config.group_mode, config.dora_norm)
            .map_err(|error| error.at(format_args!("module `{path}`")))
    }

    /// The key of a tensor of a module's adapter.
    fn key(&self, path: &str, part: Part) -> String {
        let owner = self.owner(path);
        if owner == path { keys::factor(path, part) } else { keys::nested(owner, part) }
    }

    /// The module by whose name the configuration means `path`: of the output projection of an adapted
    /// `nn.MultiheadAttention` that is the attention, else it is the module itself.
    pub(crate) fn owner<'p>(&self, path: &'p str) -> &'p str {
        owner(path, |attention| self.modules.contains_key(attention))
    }

    /// Transposed convolutions of the configuration that the adapter has no tensors for.
    fn idle_conv_transpose(&self, config: &LoraConfig) -> impl Iterator<Item = Error> {
        let idle = config.conv_transpose.iter().filter(|path| !self.modules.contains_key(*path));
        idle.map(|path| {
            Error::new(Subject::Adapter, format!("`conv_transpose` names `{path}`, which has no tensors"))
                .expected("modules of the adapter")
        })
    }

    /// Whether the configuration says why the file has `parameter`.
    fn accounts_for(&self, parameter: &str, wrapped: bool, config: &LoraConfig) -> bool {
        let (module, name) = parameter.rsplit_once('.').unwrap_or(("", parameter));
        let adapted = self.modules.contains_key(module);
        if wrapped && !adapted {
            return false;
        }
        // PEFT compares the end of the path without asking for a dot before it.
        let to_save = config.modules_to_save.as_deref().unwrap_or_default();
        let mut ancestors = parameter.match_indices('.').filter_map(|(dot, _)| parameter.get(..dot));
        let saved = ancestors.any(|ancestor| to_save.iter().any(|name| ancestor.ends_with(name.as_str())));
        let bias = match config.bias {
            Bias::All => name.contains("bias"),
            // Of a convolution that is no module of its own, `dw_bias`.
            Bias::LoraOnly => adapted && (name == "bias" || name.ends_with("_bias")),
            Bias::None => false,
        };
        let embedding = name == "weight"
            && (adapted && self.modules.get(module).is_some_and(|module| module.embedding)
                || EMBEDDINGS.iter().any(|last| module.rsplit('.').next() == Some(last)));
        saved || bias || embedding
    }
}

impl ModuleTensors {
    /// These tensors as the factors of `layer`.
    ///
    /// # Errors
    /// When they do not fit it.
    pub fn factors(&self, layer: &Layer, scale: f32, preferred: GroupMode, norm: DoraNorm) -> Result<Factors> {
        let rank = self.rank();
        let fits = |mode| self.a.shape() == layer.a_shape(rank, mode) && self.b.shape() == layer.b_shape(rank, mode);
        let others = [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared];
        let divides = |mode: &GroupMode| *mode == GroupMode::Shared || rank.is_multiple_of(layer.groups());
        let Some(mode) = [preferred].into_iter().chain(others).filter(divides).find(|mode| fits(*mode)) else {
            let mode = if divides(&preferred) { preferred } else { GroupMode::Shared };
            return Err(Error::new(Subject::Adapter, format!("its tensors do not fit a {}", layer.kind()))
                .found(format!("A {:?} and B {:?}", self.a.shape(), self.b.shape()))
                .expected(format!(
                    "A {:?} and B {:?} for a weight of {:?}",
                    layer.a_shape(rank, mode),
                    layer.b_shape(rank, mode),
                    layer.weight_shape()
                )));
        };
        let values = |tensor: &Tensor, what: &str| {
            tensor.values().ok_or_else(|| {
                Error::new(Subject::Adapter, format!("{what} is not of a floating-point type")).found(tensor.dtype())
            })
        };
        let bias = self.bias.as_ref().map(|bias| values(bias, "the bias of B")).transpose()?;
        let mut factors =
            Factors::new(layer.clone(), mode, rank, scale, values(&self.a, "A")?, values(&self.b, "B")?, bias)?;
        if let Some(magnitude) = &self.magnitude {
            let values = values(magnitude, "the magnitude")?;
            factors = factors.with_magnitude(Magnitude { values, norm })?;
        }
        if mode == GroupMode::Dense && layer.groups() > 1 && preferred != GroupMode::Dense {
            return Ok(factors.to_per_group().unwrap_or(factors));
        }
        Ok(factors)
    }
}

/// See [`StateDict::owner`].
fn owner(path: &str, adapted: impl Fn(&str) -> bool) -> &str {
    keys::attention_of(path).filter(|attention| adapted(attention)).unwrap_or(path)
}

/// The tensors found so far of one module.
type Halves = BTreeMap<Part, Tensor>;

fn module(path: &str, mut parts: Halves, config: &LoraConfig) -> Result<ModuleTensors> {
    let linear = (parts.remove(&Part::A), parts.remove(&Part::B));
    let embedding = (parts.remove(&Part::EmbeddingA), parts.remove(&Part::EmbeddingB));
    let (bias, magnitude) = (parts.remove(&Part::BBias), parts.remove(&Part::Magnitude));
    let half = |there: Part, missing: Part| {
        Error::new(Subject::Adapter, format!("`{}` without `{}`", there.suffix(), missing.suffix()))
            .with_hint("the file is incomplete: save the adapter again")
    };
    let module = match (linear, embedding) {
        ((Some(a), Some(b)), (None, None)) => ModuleTensors { a, b, bias, magnitude, embedding: false },
        ((None, None), (Some(a), Some(b))) => ModuleTensors { a, b, bias, magnitude, embedding: true },
        ((Some(_), None), (None, None)) => return Err(half(Part::A, Part::B)),
        ((None, Some(_)), (None, None)) => return Err(half(Part::B, Part::A)),
        ((None, None), (Some(_), None)) => return Err(half(Part::EmbeddingA, Part::EmbeddingB)),
        ((None, None), (None, Some(_))) => return Err(half(Part::EmbeddingB, Part::EmbeddingA)),
        ((None, None), (None, None)) if bias.is_some() => return Err(half(Part::BBias, Part::B)),
        ((None, None), (None, None)) => return Err(half(Part::Magnitude, Part::B)),
        _ => return Err(Error::new(Subject::Adapter, "the factors of a layer and those of an embedding at once")),
    };
    check_module(&module, path, config)?;
    Ok(module)
}

/// Checks the tensors of one module against each other and against the configuration.
pub(super) fn check_module(module: &ModuleTensors, path: &str, config: &LoraConfig) -> Result<()> {
    let (a, b) = (module.a.shape(), module.b.shape());
    for (part, tensor) in module.parts() {
        if tensor.float().is_none() {
            return Err(Error::new(Subject::Adapter, format!("`{}` has the wrong type", part.suffix()))
                .found(tensor.dtype())
                .expected("F32, F64, F16 or BF16"));
        }
        if tensor.shape().contains(&0) {
            return Err(Error::new(Subject::Adapter, format!("`{}` is empty", part.suffix()))
                .found(format!("{:?}", tensor.shape()))
                .with_hint("a sharded trainer saved only its own part: gather the parameters before saving"));
        }
    }
    let shapes = || {
        Error::new(Subject::Adapter, "A and B do not belong together")
            .found(format!("A {a:?} and B {b:?}"))
            .expected("A (r, in) and B (out, r), or A (r, in, k..) and B (out, r/groups, 1..)")
    };
    let (&[rank, _, ..], &[out, columns, ref ones @ ..]) = (a, b) else { return Err(shapes()) };
    let most = if module.embedding { 2 } else { 5 };
    if a.len() > most || a.len() != b.len() || ones.iter().any(|one| *one != 1) {
        return Err(shapes());
    }
    // A convolution with `rank / columns` groups.
    let grouped = a.len() > 2 && rank.is_multiple_of(columns) && out.is_multiple_of(rank / columns);
    if columns != rank && !grouped {
        return Err(shapes());
    }
    let expected = config.rank_for(path)?;
    if rank != expected {
        return Err(Error::new(Subject::Adapter, "not the rank of the configuration")
            .found(rank)
            .expected(expected)
            .with_hint("`r` and `rank_pattern` in adapter_config.json must be those the adapter was trained with"));
    }
    check_magnitude(module, config)?;
    match &module.bias {
        Some(bias) if module.embedding || bias.shape() != [out] => {
            Err(Error::new(Subject::Adapter, "the bias of B does not fit")
                .found(format!("{:?}", bias.shape()))
                .expected(if module.embedding { "none on an embedding".to_owned() } else { format!("[{out}]") }))
        }
        Some(_) if !config.lora_bias => Err(Error::new(Subject::Adapter, "B has a bias")
            .expected("none, with `lora_bias` false")
            .with_hint("set `lora_bias` in adapter_config.json: PEFT leaves the bias out without it")),
        None if config.lora_bias && !module.embedding => Err(Error::new(Subject::Adapter, "B has no bias")
            .expected("`lora_B.bias`, with `lora_bias` true")
            .with_hint("the file is incomplete: save the adapter again")),
        _ => Ok(()),
    }
}

/// The magnitude is there with `use_dora` and else not, in its shape.
fn check_magnitude(module: &ModuleTensors, config: &LoraConfig) -> Result<()> {
    let b = module.b.shape();
    let shape = if b.len() == 2 { vec![b[0]] } else { [&[1, b[0]][..], &b[2..]].concat() };
    match &module.magnitude {
        Some(magnitude) if magnitude.shape() != shape => {
            Err(Error::new(Subject::Adapter, "the magnitude of DoRA does not fit")
                .found(format!("{:?}", magnitude.shape()))
                .expected(format!("{shape:?}")))
        }
        Some(_) if !config.use_dora => Err(Error::new(Subject::Adapter, "it has a magnitude")
            .expected("none, with `use_dora` false")
            .with_hint("set `use_dora` in adapter_config.json: PEFT leaves the magnitude out without it")),
        None if config.use_dora => Err(Error::new(Subject::Adapter, "it has no magnitude")
            .expected("`lora_magnitude_vector`, with `use_dora` true")
            .with_hint("the file is incomplete: save the adapter again")),
        _ => Ok(()),
    }
}

/// The error for a tensor that the configuration does not account for.
fn stranger(key: &str, parameter: &str, config: &LoraConfig) -> Error {
    let error =
        Error::new(Subject::Adapter, "neither a factor nor in `modules_to_save`").at(format_args!("tensor `{key}`"));
    if keys::is_locon(key) {
        return error.with_hint(
            "this is a key of LyCORIS or kohya: `lowrank convert --to peft` makes PEFT's adapter of such a file",
        );
    }
    if let Some(tool) = keys::other_format(key) {
        return error.with_hint(format!("this looks like an adapter of {tool}: convert it to PEFT's format first"));
    }
    let (module, name) = parameter.rsplit_once('.').unwrap_or((parameter, ""));
    if name == "bias" && config.bias != Bias::All {
        return error
            .with_hint("if biases were trained, set `bias` in adapter_config.json to \"all\" or \"lora_only\"");
    }
    let last = module.rsplit('.').next().unwrap_or(module);
    let to_save = config.modules_to_save.as_deref().unwrap_or_default();
    match nearest(last, to_save.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("did `modules_to_save` mean `{last}` by `{near}`?")),
        None => {
            error.with_hint(format!("if it was trained, name `{last}` in `modules_to_save` of adapter_config.json"))
        }
    }
}

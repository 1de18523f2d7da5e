//! What a Burn model is made of, seen from outside: modules by path, their parameters, and what an adapter must know.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId, Reparameterization};
use burn::tensor::Tensor;
use lowrank::adapter::{Layer, LayerKind};
use lowrank::target::ModuleInfo;
use lowrank::{Error, Result, Subject};

use crate::adapter::LoraAdapter;

/// [`crate::nn::BareConv1d`], whose parameters are no module of their own in `PyTorch`.
const BARE: &str = "BareConv1d";

/// The modules of a model in the order in which Burn visits them, each before its children.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Every module that holds a parameter, directly or below it.
    pub modules: Vec<ModuleSite>,
}

/// [`crate::nn::MultiheadAttention`], which has the parameters of a linear layer under these names.
const ATTENTION: &str = "MultiheadAttention";
const IN_PROJ: [&str; 2] = ["in_proj_weight", "in_proj_bias"];

/// A module of a model.
#[derive(Debug, Clone)]
pub struct ModuleSite {
    /// Path as `PyTorch` would name it: field names and indices joined by dots. Enum variants are not segments.
    pub path: String,
    /// The name of its type, for instance `Conv1d`; `Vec` for a list.
    pub class: String,
    /// Its own parameters.
    pub params: Vec<ParamSite>,
    /// The groups of a convolution, when its `Debug` form shows them.
    pub groups: Option<usize>,
    /// The stride of a 1-D convolution, when its `Debug` form shows it.
    pub stride: Option<usize>,
    /// Whether it is one of the drop-in layers of [`crate::nn`].
    pub fused: bool,
    /// Whether it keeps running statistics as Burn's own layers do, in which no adapter can put others.
    pub own_statistics: bool,
}

/// A parameter of a module.
#[derive(Debug, Clone)]
pub struct ParamSite {
    /// Its name in a `PyTorch` checkpoint: `weight`, `bias`, or the field's own.
    pub name: String,
    /// Burn's identity for it.
    pub id: ParamId,
    /// Its shape in Burn.
    pub shape: Vec<usize>,
    /// Whether `PyTorch` stores the transpose, as it does for linear layers.
    pub transposed: bool,
}

impl ParamSite {
    /// The shape in a `PyTorch` checkpoint.
    #[must_use]
    pub fn torch_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ModuleSite {
    /// The parameter under its `PyTorch` name.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&ParamSite> {
        self.params.iter().find(|param| param.name == name)
    }

    /// The parameter that an adapter's factors change.
    #[must_use]
    pub fn weight(&self) -> Option<&ParamSite> {
        self.param(if self.class == ATTENTION { IN_PROJ[0] } else { "weight" })
    }

    /// The parameter that is added to an adapted layer's output.
    #[must_use]
    pub fn bias(&self) -> Option<&ParamSite> {
        self.param(if self.class == ATTENTION { IN_PROJ[1] } else { "bias" })
    }

    /// The full `PyTorch` key of one of its parameters.
    #[must_use]
    pub fn key(&self, param: &ParamSite) -> String {
        if self.class == BARE { format!("{}_{}", self.path, param.name) } else { join(&self.path, &param.name) }
    }

    /// What an adapter sits on, when the module is of a kind that can have one.
    ///
    /// # Errors
    /// When a convolution hides its groups: an adapter of the wrong shape would load nowhere.
    pub fn layer(&self) -> Result<Option<Layer>> {
        let kind = match self.class.as_str() {
            "Linear" | ATTENTION => LayerKind::Linear,
            "HfConv1D" => LayerKind::Conv1D,
            "Embedding" => LayerKind::Embedding,
            "Conv1d" | BARE => LayerKind::Conv1d,
            "Conv2d" => LayerKind::Conv2d,
            "Conv3d" => LayerKind::Conv3d,
            "ConvTranspose1d" => LayerKind::ConvTranspose1d,
            "ConvTranspose2d" => LayerKind::ConvTranspose2d,
            _ => return Ok(None),
        };
        let Some(weight) = self.weight().filter(|weight| weight.shape.len() == kind.weight_axes()) else {
            return Ok(None);
        };
        let groups = match self.groups {
            _ if kind.kernel_axes() == 0 => 1,
            Some(groups) => groups,
            None => {
                return Err(Error::new(Subject::Model, "the groups of this convolution cannot be seen")
                    .at(&self.path)
                    .with_hint("derive `Debug` on the model and its layers: stride and groups are read from there"));
            }
        };
        Layer::new(kind, &weight.torch_shape(), groups).map(Some)
    }
}

impl Survey {
    /// Surveys a model.
    ///
    /// # Errors
    /// When the model carries a reparameterization that is not ours: Burn holds one for each parameter.
    pub fn of<M: Module>(model: &M) -> Result<Self> {
        let text = format!("{model:?}");
        let mut visitor = Surveyor { facts: Facts::index(&text), ..Surveyor::default() };
        model.visit(&mut visitor);
        if let Some((path, name)) = visitor.foreign {
            return Err(Error::new(
                Subject::Model,
                format!("the parameter carries Burn's reparameterization `{name}`"),
            )
            .at(path)
            .with_hint("call `materialize()` on the model first: a parameter holds one reparameterization"));
        }
        Ok(visitor.survey)
    }

    /// The modules as target matching wants them.
    ///
    /// # Errors
    /// As [`ModuleSite::layer`].
    pub fn infos(&self) -> Result<Vec<ModuleInfo>> {
        let info = |site: &ModuleSite| {
            Ok(ModuleInfo { path: site.path.clone(), class: site.class.clone(), layer: site.layer()? })
        };
        self.modules.iter().filter(|site| !site.path.is_empty()).map(info).collect()
    }

    /// The module at a path.
    #[must_use]
    pub fn module(&self, path: &str) -> Option<&ModuleSite> {
        self.modules.iter().find(|site| site.path == path)
    }

    /// Every parameter with its module, in visiting order.
    pub fn params(&self) -> impl Iterator<Item = (&ModuleSite, &ParamSite)> {
        self.modules.iter().flat_map(|site| site.params.iter().map(move |param| (site, param)))
    }
}

/// `path.name`, or `name` at the top.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[derive(Default)]
struct Surveyor<'a> {
    facts: Facts<'a>,
    /// The fields entered, each with the type that holds it.
    stack: Vec<(String, String)>,
    inside_adapter: bool,
    foreign: Option<(String, String)>,
    places: HashMap<String, usize>,
    survey: Survey,
}

impl Surveyor<'_> {
    /// The position of a module in the survey, added with its ancestors when it is new.
    fn place(&mut self, depth: usize) -> usize {
        let path = self.stack[..depth].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".");
        if let Some(place) = self.places.get(&path) {
            return *place;
        }
        if depth > 0 {
            self.place(depth - 1);
        }
        let class = self.stack[depth].1.trim_start_matches("Struct:").to_owned();
        self.survey.modules.push(ModuleSite {
            path: path.clone(),
            class,
            params: vec![],
            groups: None,
            stride: None,
            fused: false,
            own_statistics: false,
        });
        self.places.insert(path, self.survey.modules.len() - 1);
        self.survey.modules.len() - 1
    }
}

impl ModuleVisitor for Surveyor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(depth) = self.stack.len().checked_sub(1).filter(|_| !self.inside_adapter) else { return };
        let place = self.place(depth);
        let fields = self.facts.of(param.id);
        let site = &mut self.survey.modules[place];
        site.groups = site.groups.or(number(fields, "groups"));
        site.stride = site.stride.or(number(fields, "stride"));
        site.fused |= fields.contains("fused: Fused");
        site.own_statistics |= fields.contains("RunningState");
        let field = &self.stack[depth].0;
        let transposed =
            (site.class == "Linear" && field == "weight") || (site.class == ATTENTION && field == IN_PROJ[0]);
        let shape = param.lazy_shape().to_vec();
        site.params.push(ParamSite { name: torch_name(field).to_owned(), id: param.id, shape, transposed });
    }

    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == "Reparameterization" {
            self.inside_adapter = true;
            if name != LoraAdapter::NAME {
                let path = self.stack.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".");
                self.foreign.get_or_insert((path, name.to_owned()));
            }
        } else if !self.inside_adapter && !container_type.starts_with("Enum:") {
            self.stack.push((name.to_owned(), container_type.to_owned()));
        }
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        if container_type == "Reparameterization" {
            self.inside_adapter = false;
        } else if !self.inside_adapter && !container_type.starts_with("Enum:") {
            self.stack.pop();
        }
    }
}

/// `PyTorch`'s name for a parameter: Burn calls those of its normalisation layers `gamma` and `beta`.
fn torch_name(field: &str) -> &str {
    match field {
        "gamma" => "weight",
        "beta" => "bias",
        other => other,
    }
}

/// What the `Debug` form of a model shows of the layer that a parameter belongs to.
///
/// Burn's visitor passes tensors only; groups and stride of a convolution are plain fields. The derived `Debug` prints them,
/// and prints every parameter with its identity, so the field is found in the same braces.
#[derive(Default)]
struct Facts<'a> {
    layers: HashMap<&'a str, &'a str>,
}

impl<'a> Facts<'a> {
    fn index(text: &'a str) -> Self {
        let marker = "Param: ";
        let layers = text.match_indices(marker).map(|(at, _)| {
            let rest = &text[at + marker.len()..];
            let id = rest.split(' ').next().unwrap_or(rest);
            (id, own_fields(rest))
        });
        Self { layers: layers.collect() }
    }

    /// The fields of the layer that holds a parameter, as text.
    fn of(&self, id: ParamId) -> &'a str {
        let id = id.to_string();
        self.layers.get(id.as_str()).copied().unwrap_or_default()
    }
}

/// The number in `name: number`.
fn number(fields: &str, name: &str) -> Option<usize> {
    let after = fields.split(&format!("{name}: ")).nth(1)?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The text up to the brace that closes the struct in which `rest` begins.
fn own_fields(rest: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' if depth == 0 => return &rest[..at],
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use burn::nn::conv::{Conv1d, Conv1dConfig};
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Block {
        conv: Conv1d,
        norm: LayerNorm,
    }

    #[derive(Module, Debug)]
    struct Net {
        blocks: Vec<Block>,
        fused: crate::nn::Conv1d,
        head: Linear,
    }

    #[derive(Module, Debug)]
    enum Any {
        Net(Net),
    }

    fn net(device: &Device) -> Any {
        let block = |groups| Block {
            conv: Conv1dConfig::new(8, 4, 3).with_groups(groups).init(device),
            norm: LayerNormConfig::new(4).init(device),
        };
        Any::Net(Net {
            blocks: vec![block(1), block(4)],
            fused: crate::nn::Conv1d::new(&Conv1dConfig::new(4, 4, 3).with_groups(2), device),
            head: LinearConfig::new(4, 2).init(device),
        })
    }

    #[test]
    fn paths_shapes_and_groups_are_those_of_the_layers() {
        let survey = Survey::of(&net(&Device::flex())).unwrap();
        let seen: Vec<_> = survey
            .modules
            .iter()
            .filter(|site| !site.params.is_empty())
            .map(|site| (site.path.as_str(), site.class.as_str(), site.groups, site.fused))
            .collect();
        assert_eq!(
            seen,
            [
                ("blocks.0.conv", "Conv1d", Some(1), false),
                ("blocks.0.norm", "LayerNorm", None, false),
                ("blocks.1.conv", "Conv1d", Some(4), false),
                ("blocks.1.norm", "LayerNorm", None, false),
                ("fused", "Conv1d", Some(2), true),
                ("head", "Linear", None, false),
            ]
        );
        let names: Vec<_> = survey.params().map(|(site, param)| site.key(param)).collect();
        assert!(names.contains(&"blocks.0.norm.weight".to_owned()) && names.contains(&"blocks.0.norm.bias".to_owned()));
        let head = survey.module("head").unwrap();
        assert_eq!(head.param("weight").unwrap().torch_shape(), [2, 4]);
        assert_eq!(survey.module("fused").unwrap().layer().unwrap().unwrap().weight_shape(), [4, 2, 3]);
        assert_eq!(survey.module("blocks").unwrap().class, "Vec");
    }

    #[test]
    fn a_foreign_reparameterization_is_refused() {
        let model = LinearConfig::new(4, 2).init(&Device::flex()).apply_lora(burn::module::Lora::new(2, 4.0));
        let error = Survey::of(&model).unwrap_err();
        assert!(error.to_string().contains("reparameterization `lora`"), "{error}");
    }
}

//! The models of golden cases and of `interop/`: layers at dotted paths, one after the other, built from a `case.json`.

mod layer;
mod padding;

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use lowrank::files::Checkpoint;
use lowrank_burn::survey::Survey;
use lowrank_burn::values;
use serde_json::Value;

use layer::Layer;

/// A folder with a base, adapters and an input; `golden/README.md` describes it.
pub struct Case {
    pub dir: PathBuf,
    pub json: Value,
}

impl Case {
    pub fn open(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join("case.json")).unwrap();
        Self { dir: dir.to_owned(), json: serde_json::from_str(&text).unwrap() }
    }

    pub fn name(&self) -> &str {
        self.json["name"].as_str().unwrap()
    }

    /// The folder of the adapter.
    pub fn adapter(&self) -> PathBuf {
        self.dir.join(self.json["adapter"].as_str().unwrap())
    }

    /// Input and outputs.
    pub fn io(&self) -> Checkpoint {
        Checkpoint::open(&self.dir.join("io.safetensors")).unwrap()
    }

    /// The base model with its weights, those of half precision held in it where the layer can.
    pub fn chain(&self, device: &Device) -> Chain {
        let steps = self.json["modules"].as_array().unwrap().iter();
        let steps = steps.map(|row| Step {
            path: row["path"].as_str().unwrap().split('.').map(str::to_owned).collect(),
            layer: Layer::of(row, device),
            padded: padding::before(row),
        });
        let chain = Chain { steps: steps.collect() };
        let base = Checkpoint::open(&self.dir.join("base.safetensors")).unwrap();
        let survey = Survey::of(&chain).unwrap();
        let own = survey.params().map(|(site, param)| {
            let stored = base.read(&site.key(param)).unwrap();
            (param.id, turned(stored.values().unwrap(), stored.shape(), param.transposed))
        });
        let mut chain = values::write(chain.clone(), own.collect());
        let dtype = match self.json["dtype"].as_str().unwrap() {
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            _ => DType::F32,
        };
        chain.steps = chain.steps.into_iter().map(|step| Step { layer: step.layer.held_in(dtype), ..step }).collect();
        chain
    }

    /// The input of the model.
    pub fn input(&self, device: &Device) -> Signal {
        let stored = self.io().read("x").unwrap();
        let shape = stored.shape().to_vec();
        let Some(numbers) = stored.values() else {
            let ids: Vec<i64> = stored.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
            return Signal::Ids(Tensor::from_data(TensorData::new(ids, shape), device));
        };
        let data = TensorData::new(numbers, shape.clone());
        match shape.len() {
            2 => Signal::Two(Tensor::from_data(data, device)),
            3 => Signal::Three(Tensor::from_data(data, device)),
            4 => Signal::Four(Tensor::from_data(data, device)),
            _ => Signal::Five(Tensor::from_data(data, device)),
        }
    }
}

/// What flows from one layer to the next.
#[derive(Clone)]
pub enum Signal {
    Ids(Tensor<2, Int>),
    Two(Tensor<2>),
    Three(Tensor<3>),
    Four(Tensor<4>),
    Five(Tensor<5>),
}

impl Signal {
    /// Shape and values.
    pub fn into_parts(self) -> (Vec<usize>, Vec<f32>) {
        match self {
            Self::Ids(_) => panic!("token numbers are an input"),
            Self::Two(y) => (y.dims().to_vec(), values::of(y)),
            Self::Three(y) => (y.dims().to_vec(), values::of(y)),
            Self::Four(y) => (y.dims().to_vec(), values::of(y)),
            Self::Five(y) => (y.dims().to_vec(), values::of(y)),
        }
    }
}

/// The model of a case.
#[derive(Debug, Clone)]
pub struct Chain {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    path: Vec<String>,
    layer: Layer,
    padded: Option<padding::Padded>,
}

impl Chain {
    pub fn forward(&self, x: Signal) -> Signal {
        self.steps.iter().fold(x, |x, step| {
            let x = match &step.padded {
                Some(padded) => padded.apply(x),
                None => x,
            };
            step.layer.forward(x)
        })
    }

    /// Every parameter of the base under its `PyTorch` name, in `PyTorch`'s layout, in single precision; what hangs on
    /// them left aside.
    pub fn state(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let survey = Survey::of(self).unwrap();
        let ids: Vec<_> = survey.params().map(|(_, param)| param.id).collect();
        let mut own = values::read(self, &ids);
        let tensors = survey.params().map(|(site, param)| {
            let values = turned(own.remove(&param.id).unwrap(), &param.shape, param.transposed);
            (site.key(param), param.torch_shape(), values)
        });
        tensors.collect()
    }
}

/// A matrix the other way round, if wanted.
fn turned(values: Vec<f32>, shape: &[usize], wanted: bool) -> Vec<f32> {
    match (wanted, shape) {
        (true, &[rows, columns]) => (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect(),
        _ => values,
    }
}

/// Written by hand, since paths are data here: each segment is entered as the field of a struct.
impl Module for Chain {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.steps.iter().fold(devices, |devices, step| step.layer.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|layer| layer.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|layer| layer.to_device(device))
    }

    fn train(self) -> Self {
        self.each(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().each(|layer| layer.valid())
    }

    fn materialize(self) -> Self {
        self.each(Module::materialize)
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        for step in &self.steps {
            for name in &step.path {
                visitor.enter_module(name, "Struct:Module");
            }
            step.layer.visit(visitor);
            for name in step.path.iter().rev() {
                visitor.exit_module(name, "Struct:Module");
            }
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        let steps = self.steps.into_iter().map(|step| {
            for name in &step.path {
                mapper.enter_module(name, "Struct:Module");
            }
            let layer = step.layer.map(mapper);
            for name in step.path.iter().rev() {
                mapper.exit_module(name, "Struct:Module");
            }
            Step { layer, ..step }
        });
        Self { steps: steps.collect() }
    }
}

impl Chain {
    fn each(self, mut change: impl FnMut(Layer) -> Layer) -> Self {
        Self { steps: self.steps.into_iter().map(|step| Step { layer: change(step.layer), ..step }).collect() }
    }
}

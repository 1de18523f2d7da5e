//! What a base model says to an input, with an adapter: for the checks against Python in `interop/`.
//!
//!     model_outputs BASE INPUT OUTPUT                     the base alone
//!     model_outputs BASE INPUT OUTPUT --load ADAPTER      with an adapter of a folder
//!     model_outputs BASE INPUT OUTPUT --new CONFIG SAVE   with one that begins at random, as a configuration says; it is saved
//!
//! INPUT is a safetensors file with the tensor `x`: samples `[batch, samples]`, a spectrogram `[batch, frames, bins]`, or
//! tokens `[batch, tokens]` (64-bit integers). OUTPUT gets the tensor `y`.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::adapter::tensor::Tensor as Stored;
use lowrank::config::LoraConfig;
use lowrank::files::{self, Checkpoint, Disk, writer};
use lowrank::float::FloatType;
use lowrank::{Error, Result, Subject};
use lowrank_burn::attach::DEFAULT;
use lowrank_burn::models::hubert::Hubert;
use lowrank_burn::models::wav2vec2::Wav2Vec2;
use lowrank_burn::models::{BaseModel, Dtype, Network};
use lowrank_burn::{attach, load, values};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ([base, input, output, ..], rest) = (args.as_slice(), args.get(3..).unwrap_or_default()) else {
        return Err(usage());
    };
    let device = Device::flex();
    let network = BaseModel::load(Path::new(base), &device, Dtype::Float32)?.network;
    let network = match rest {
        [] => network,
        ["--load", adapter] => load(network, Path::new(adapter))?.0,
        ["--new", config, save] => {
            let config = LoraConfig::from_json(&files::read_to_string(Path::new(config), 1 << 20)?, config)?.0;
            let (network, adapters) = attach(network, &config, 7)?;
            adapters.save(&network, DEFAULT, Path::new(save), None)?;
            network
        }
        _ => return Err(usage()),
    };
    let (values, shape) = outputs(&network, &Checkpoint::open(Path::new(input))?.read("x")?, &device)?;
    let y = Stored::from_values(FloatType::F32, shape, &values)?;
    writer::complete(&Disk, Path::new(output), [("y", &y)])?.publish()
}

fn usage() -> Error {
    Error::new(Subject::Config, "wrong arguments").expected("BASE INPUT OUTPUT [--load ADAPTER | --new CONFIG SAVE]")
}

fn outputs(network: &Network, x: &Stored, device: &Device) -> Result<(Vec<f32>, Vec<usize>)> {
    let shape = x.shape().to_vec();
    if let Network::Gpt2(network) = network {
        let tokens: Vec<i64> = x.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        return Ok(plain(network.forward(Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), device))));
    }
    let values = x.values().ok_or_else(|| Error::new(Subject::Data, "not floating point").at("x"))?;
    if let Network::HifiGan(network) = network {
        return Ok(plain(network.forward(Tensor::from_data(TensorData::new(values, shape), device))));
    }
    let [batch, samples] = shape[..] else {
        return Err(Error::new(Subject::Data, "not samples").at("x").found(format!("{shape:?}")));
    };
    let signal = Tensor::<3>::from_data(TensorData::new(values, [batch, 1, samples]), device);
    match network {
        Network::Wav2Vec2(Wav2Vec2::Ctc(network)) => Ok(plain(network.forward(signal))),
        Network::Hubert(Hubert::Ctc(network)) => Ok(plain(network.forward(signal))),
        network => network.forward(signal).map(plain),
    }
}

fn plain<const D: usize>(y: Tensor<D>) -> (Vec<f32>, Vec<usize>) {
    let shape = y.dims().to_vec();
    (values::of(y), shape)
}

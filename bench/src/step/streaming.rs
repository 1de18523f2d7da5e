//! Silero VAD as it listens: one recording, frame by frame.

use anyhow::Result;
use burn::tensor::{Device, Distribution, Tensor};
use lowrank::config::{InitLoraWeights, LoraConfig, Patterns};
use lowrank_burn::models::silero_vad::{Listener, SileroVad, SileroVadConfig};

use crate::peer::lowrank::{FROZEN, LORA};
use crate::peer::{Mode, Peer, timed};
use crate::record::Streaming;
use crate::rounds;

/// Frames of a call: 3.2 seconds.
const FRAMES: usize = 100;
/// Samples a second.
const RATE: f64 = 16_000.0;

/// Measures the network without an adapter, and with one that is live.
pub fn measure(rounds: usize) -> Result<Streaming> {
    let device = Device::flex();
    device.seed(0);
    let config = SileroVadConfig::default();
    let vad = SileroVad::new(&config, &device);
    let sound = Tensor::random([1, FRAMES * config.frame], Distribution::Normal(0.0, 0.1), &device);
    let lora = LoraConfig {
        r: 8,
        lora_alpha: 16.0,
        target_modules: Some(Patterns::List(["conv1", "conv2", "conv3", "conv4"].map(Into::into).to_vec())),
        init_lora_weights: InitLoraWeights::False,
        ..LoraConfig::default()
    };
    // Kept, so that the adapter stays live.
    let (adapted, _adapters) = lowrank_burn::attach(vad.clone(), &lora, 0)?;
    let stream = |name, vad| {
        let listener = Listener::new(vad, 1, &device);
        Box::new(Stream { name, listener, sound: sound.clone() }) as Box<dyn Peer>
    };
    let mut peers = vec![stream(FROZEN, vad), stream(LORA, adapted)];
    let series = rounds::measure(&mut peers, Mode::Infer, rounds)?;
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let seconds = (FRAMES * config.frame) as f64 / RATE;
    Ok(Streaming { seconds, frames: FRAMES, series })
}

/// A network that listens.
struct Stream {
    name: &'static str,
    listener: Listener,
    sound: Tensor<2>,
}

impl Stream {
    /// Listens to the whole sound, and returns the last logit.
    fn listen(&mut self) -> f32 {
        let samples = self.sound.dims()[1] / FRAMES;
        let mut last = 0.0;
        for frame in 0..FRAMES {
            let piece = self.sound.clone().narrow(1, frame * samples, samples);
            // As a device would, which waits for every answer.
            last = self.listener.hear(piece).into_scalar::<f32>();
        }
        last
    }
}

impl Peer for Stream {
    fn name(&self) -> &str {
        self.name
    }

    fn takes(&self, mode: Mode) -> bool {
        mode == Mode::Infer
    }

    fn run(&mut self, _mode: Mode) -> Result<f64> {
        let mut last = 0.0;
        let ms = timed(|| last = rayon::join(|| self.listen(), || ()).0);
        anyhow::ensure!(last.is_finite(), "the logit is {last}");
        Ok(ms)
    }
}

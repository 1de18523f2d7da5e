//! The recordings of a split as examples: texts to learn, and texts to compare with what a network writes.

use std::path::PathBuf;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::random::Random;
use lowrank::{Error, Result, Subject};
use rayon::prelude::*;
use serde::Serialize;

use super::{Augmentation, Evaluation, Tally, Transcriber, normalised};
use crate::data::{Manifest, Part, SignalFormat, Split};
use crate::models::Network;
use crate::models::whisper::{Generated, LogMel, POSITIONS_A_SECOND, RATE, Whisper, ids};
use crate::tasks::{self, Examples, Predictions};
use crate::train::TrainConfig;

/// Samples of one position of the encoder.
const POSITION: usize = RATE / POSITIONS_A_SECOND;

/// The recordings of a split, and the windows they stand in.
#[derive(Debug, Clone)]
pub struct Utterances {
    transcriber: Transcriber,
    heard: Vec<Utterance>,
    windows: Vec<Window>,
    /// Positions of the encoder in a window.
    positions: usize,
    augmentation: Augmentation,
    label_smoothing: f32,
    beams: usize,
}

/// A recording, or a part of one.
#[derive(Debug, Clone)]
struct Utterance {
    path: PathBuf,
    /// Its first sample in the recording.
    start: usize,
    sound: Vec<f32>,
    /// What is said, and its tokens with the end; none where it is not known.
    text: Option<(String, Vec<u32>)>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    utterance: usize,
    /// Its first sample in the utterance.
    start: usize,
    /// Whether it holds all of it.
    whole: bool,
}

/// What a network writes of one window.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    path: String,
    /// In seconds.
    start: f64,
    /// In seconds.
    end: f64,
    /// What the manifest says of the whole recording; none without a manifest.
    reference: Option<&'a str>,
    /// What the network says.
    text: String,
    /// As tokens.
    tokens: &'a [u32],
    /// Of each token, the logarithm of its probability.
    log_probs: &'a [f32],
}

impl Utterances {
    /// The recordings of a split for a transcriber.
    ///
    /// # Errors
    /// When a recording cannot be used: see [`Part::load`]; when a window is longer than the network's, and a text to learn
    /// or its recording does not fit into one.
    pub fn load(manifest: &Manifest, split: Split, transcriber: &Transcriber, config: &TrainConfig) -> Result<Self> {
        let positions = positions(manifest.reading.window_seconds, transcriber)?;
        let format = SignalFormat { channels: 1, rate: Transcriber::rate(), window: 1, hop: 1 };
        let parts = Part::load(manifest, split, &format)?;
        let learned = manifest.labelled() && split == Split::Train;
        let samples = positions * POSITION;
        let (mut utterances, mut windows, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            let place = format!("{}: line {}", manifest.path().display(), part.line);
            let text = manifest.labelled().then(|| manifest.labels().get(part.label)).flatten();
            match Utterance::of(part, text, transcriber) {
                Ok(utterance) if learned && utterance.sound.len() > samples => {
                    errors.push(too_long(&utterance, samples).at(place));
                }
                Ok(utterance) => {
                    let starts = (0..utterance.sound.len()).step_by(samples);
                    let (at, whole) = (utterances.len(), starts.len() == 1);
                    windows.extend(starts.map(|start| Window { utterance: at, start, whole }));
                    utterances.push(utterance);
                }
                Err(error) => errors.push(error.at(place)),
            }
        }
        Error::all(errors)?;
        Ok(Self {
            transcriber: transcriber.clone(),
            heard: utterances,
            windows,
            positions,
            augmentation: Augmentation { speed: config.speed_perturbation, gain: config.gain_perturbation },
            label_smoothing: config.label_smoothing,
            beams: config.num_beams,
        })
    }

    /// The log-mel spectrograms of windows, `[batch, bins, frames]`.
    fn features(&self, whisper: &Whisper, indices: &[usize]) -> Tensor<3> {
        let (bins, frames) = (whisper.mel_bins(), 2 * self.positions);
        let mel = LogMel::new(bins);
        let features: Vec<Vec<f32>> = indices.par_iter().map(|index| mel.of(&self.sound(*index), frames)).collect();
        let shape = [indices.len(), bins, frames];
        Tensor::from_data(TensorData::new(features.concat(), shape), &device(whisper))
    }

    /// The sound of a window, varied for an index of [`Examples::order`].
    fn sound(&self, index: usize) -> Vec<f32> {
        let (draw, index) = (index / self.windows.len(), index % self.windows.len());
        let (window, samples) = (self.windows[index], self.positions * POSITION);
        let sound = &self.heard[window.utterance].sound[window.start..];
        let sound = &sound[..sound.len().min(samples)];
        if draw == 0 {
            return sound.to_vec();
        }
        self.augmentation.of(sound, samples, &mut Random::new(draw as u64, "augmentation", index as u64))
    }

    fn utterance(&self, index: usize) -> &Utterance {
        &self.heard[self.windows[index % self.windows.len()].utterance]
    }

    /// The mean cross-entropy of the tokens of texts, their ends included, and how many there are. The prompt is given.
    fn cross_entropy(&self, whisper: &Whisper, heard: &Tensor<3>, indices: &[usize]) -> (Tensor<1>, u64) {
        let (prompt, device) = (&self.transcriber.generation.prompt, device(whisper));
        let texts = indices.iter().map(|index| self.utterance(*index).text.as_ref().map_or(&[][..], |(_, text)| text));
        let texts: Vec<&[u32]> = texts.collect();
        let length = prompt.len() + texts.iter().map(|text| text.len()).max().unwrap_or(1) - 1;
        let (mut inputs, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, text) in texts.iter().enumerate() {
            let said = prompt.iter().chain(text.iter().take(text.len().saturating_sub(1))).copied();
            // What follows a text is not looked at: a token sees those before it.
            inputs.extend(said.chain(std::iter::repeat(prompt[0])).take(length));
            let first = row * length + prompt.len() - 1;
            places.extend(first..first + text.len());
            targets.extend(text.iter().map(|token| *token as usize));
        }
        let hidden = whisper.follow(heard, ids(&inputs, indices.len(), &device));
        let [batch, length, width] = hidden.dims();
        let hidden = hidden.reshape([batch * length, width]).select(0, whole_numbers(&places, &device));
        let smoothing = (self.label_smoothing > 0.0).then_some(self.label_smoothing);
        let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&device);
        let loss = loss.forward(whisper.model.decoder.logits(hidden), whole_numbers(&targets, &device));
        (loss, targets.len() as u64)
    }

    /// What the network writes of each window; of batches of whole recordings with a text, the loss is counted.
    fn transcribe(
        &self,
        network: &Network,
        batch_size: usize,
        mut counted: Option<&mut Tally>,
    ) -> Result<Vec<Generated>> {
        let whisper = whisper(network)?;
        let windows: Vec<usize> = (0..self.windows.len()).collect();
        let mut texts = Vec::with_capacity(windows.len());
        for indices in windows.chunks(batch_size.max(1)) {
            let heard = whisper.hear(self.features(whisper, indices))?;
            let learnable = |index: &usize| self.windows[*index].whole && self.utterance(*index).text.is_some();
            if let Some(tally) = counted.as_mut().filter(|_| indices.iter().all(learnable)) {
                let (loss, tokens) = self.cross_entropy(whisper, &heard, indices);
                tally.loss.add(f64::from(loss.into_scalar::<f32>()), tokens);
            }
            texts.extend(whisper.generate(&heard, &self.transcriber.generation, self.beams)?);
        }
        Ok(texts)
    }

    /// The text of each recording, its windows one after the other.
    fn joined(&self, texts: &[Generated]) -> Result<Vec<String>> {
        let mut joined = vec![String::new(); self.heard.len()];
        for (window, text) in self.windows.iter().zip(texts) {
            let whole = &mut joined[window.utterance];
            if !whole.is_empty() {
                whole.push(' ');
            }
            whole.push_str(&self.transcriber.tokens.decode(&text.tokens)?);
        }
        Ok(joined)
    }
}

impl Examples for Utterances {
    fn len(&self) -> usize {
        self.windows.len()
    }

    fn unit(&self) -> &'static str {
        "recording"
    }

    /// With augmentation, an index is that of an example and the number of a variation of it: `index + len · variation`.
    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut random = Random::new(seed, "shuffle", epoch);
        let mut order: Vec<usize> = (0..self.len()).collect();
        random.shuffle(&mut order);
        if self.augmentation.is_none() {
            return order;
        }
        let variations = usize::MAX / self.len() - 1;
        order.into_iter().map(|index| index + self.len() * (1 + random.below(variations))).collect()
    }

    fn loss(&self, network: &Network, indices: &[usize]) -> Result<Tensor<1>> {
        let whisper = whisper(network)?;
        let heard = whisper.hear(self.features(whisper, indices))?;
        Ok(self.cross_entropy(whisper, &heard, indices).0)
    }

    /// Word and character error rates, texts without an error, and mean cross-entropy.
    fn evaluate(&self, network: &Network, batch_size: usize) -> Result<tasks::Evaluation> {
        let mut tally = Tally::default();
        let texts = self.transcribe(network, batch_size, Some(&mut tally))?;
        for (utterance, found) in self.heard.iter().zip(self.joined(&texts)?) {
            if let Some((reference, _)) = &utterance.text {
                tally.add(reference, &found);
            }
        }
        Ok(tasks::Evaluation::Transcription(Evaluation::new(&tally)))
    }

    fn predict(&self, network: &Network, batch_size: usize) -> Result<Predictions> {
        let texts = self.transcribe(network, batch_size, None)?;
        let mut predictions = Predictions::default();
        for (window, found) in self.windows.iter().zip(&texts) {
            let utterance = &self.heard[window.utterance];
            let end = utterance.sound.len().min(window.start + self.positions * POSITION);
            predictions.push(&Prediction {
                path: utterance.path.display().to_string(),
                start: seconds(utterance.start + window.start),
                end: seconds(utterance.start + end),
                reference: utterance.text.as_ref().map(|(text, _)| text.as_str()),
                text: self.transcriber.tokens.decode(&found.tokens)?,
                tokens: &found.tokens,
                log_probs: &found.log_probs,
            })?;
        }
        let (mut labelled, mut exact) = (0, 0);
        for (utterance, found) in self.heard.iter().zip(self.joined(&texts)?) {
            let Some((reference, _)) = &utterance.text else { continue };
            labelled += 1;
            exact += u64::from(normalised(reference) == normalised(&found));
        }
        predictions.counts = vec![("recordings", self.heard.len() as u64), ("labelled", labelled), ("exact", exact)];
        Ok(predictions)
    }
}

impl Utterance {
    fn of(part: Part, text: Option<&String>, transcriber: &Transcriber) -> Result<Self> {
        let text = text.map(|text| Ok((text.clone(), tokens(text, transcriber)?))).transpose()?;
        let sound = part.channels.into_iter().next().unwrap_or_default();
        Ok(Self { path: part.path, start: part.range.start, sound, text })
    }
}

/// The tokens of a text and its end.
fn tokens(text: &str, transcriber: &Transcriber) -> Result<Vec<u32>> {
    let mut tokens = transcriber.tokens.encode(text)?;
    tokens.extend(transcriber.generation.ends.first());
    let most = transcriber.generation.max_length.saturating_sub(transcriber.generation.prompt.len());
    if tokens.len() > most {
        return Err(Error::new(Subject::Data, "a text is longer than the model's")
            .found(format!("{} tokens", tokens.len()))
            .expected(format!("at most {most}")));
    }
    Ok(tokens)
}

/// Positions of the encoder in a window of so many seconds.
fn positions(seconds: Option<f64>, transcriber: &Transcriber) -> Result<usize> {
    let longest = transcriber.longest_window;
    let seconds = seconds.unwrap_or(longest);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let positions = (seconds * POSITIONS_A_SECOND as f64).round();
    if !(seconds <= longest && positions >= 1.0) {
        return Err(Error::new(Subject::Config, "out of range")
            .at("window_seconds")
            .found(seconds)
            .expected(format!("from 0.02 up to {longest}, the model's own window")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    let positions = positions as usize;
    Ok(positions)
}

fn too_long(utterance: &Utterance, samples: usize) -> Error {
    Error::new(Subject::Data, "a recording to learn is longer than a window")
        .at(utterance.path.display())
        .found(format!("{} s", seconds(utterance.sound.len())))
        .expected(format!("at most {} s", seconds(samples)))
        .with_hint("name its parts with start and end, each with its text, or make window_seconds longer")
}

fn whisper(network: &Network) -> Result<&Whisper> {
    match network {
        Network::Whisper(whisper) => Ok(whisper),
        _ => Err(Error::new(Subject::Model, "the network does not transcribe")),
    }
}

fn device(whisper: &Whisper) -> Device {
    whisper.model.decoder.layer_norm.gamma.device()
}

fn whole_numbers(numbers: &[usize], device: &Device) -> Tensor<1, Int> {
    let numbers: Vec<i64> = numbers.iter().map(|number| i64::try_from(*number).unwrap_or(i64::MAX)).collect();
    let shape = [numbers.len()];
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

#[expect(clippy::cast_precision_loss, reason = "a place in memory is far below 2^53")]
fn seconds(samples: usize) -> f64 {
    samples as f64 / Transcriber::rate()
}

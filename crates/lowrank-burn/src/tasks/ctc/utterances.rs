//! The utterances of a split as examples: what a network hears in them, and how far that is from what is said.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use lowrank::{Error, Result, Subject};
use serde::Serialize;

use super::loss::ctc_loss;
use super::metrics::Evaluation;
use super::recogniser::{CtcLossReduction, Recogniser};
use super::{align, beam_search, greedy};
use crate::data::{self, Split, Utterance, utterances};
use crate::models::Network;
use crate::models::hubert::Hubert;
use crate::models::wav2vec2::Wav2Vec2;
use crate::tasks::{self, Examples, Predictions};
use crate::train::TrainConfig;
use crate::values;

/// The utterances of a split.
#[derive(Debug, Clone)]
pub struct Utterances {
    recogniser: Recogniser,
    /// Texts that decoding keeps; 1 is greedy.
    beams: usize,
    heard: Vec<Utterance>,
    /// The labels of each; none where it is not known what is said.
    labels: Option<Vec<Vec<usize>>>,
    warnings: Vec<String>,
}

/// What a network hears in one utterance.
#[derive(Debug, Serialize)]
struct Prediction {
    path: String,
    /// In seconds.
    start: f64,
    /// In seconds.
    end: f64,
    /// What the manifest says is said, in the vocabulary's own writing; none without a manifest.
    text: Option<String>,
    /// What the network hears.
    predicted: String,
    words: Vec<Word>,
}

/// A word, and when it is said: in seconds from the start of the recording.
#[derive(Debug, Serialize)]
struct Word {
    #[serde(rename = "word")]
    text: String,
    start: f64,
    end: f64,
}

/// What a network says of the frames of one utterance.
struct Heard {
    log_probs: Vec<f32>,
    loss: f64,
    ids: Vec<usize>,
}

impl Utterances {
    /// The utterances of a split for a recogniser.
    ///
    /// # Errors
    /// See [`utterances`]; and all texts with characters that are not in the vocabulary, or with more of them than the
    /// recording has frames.
    pub fn load(
        manifest: &data::Manifest,
        split: Split,
        recogniser: &Recogniser,
        config: &TrainConfig,
    ) -> Result<Self> {
        let (utterances, warnings) = utterances(manifest, split, &recogniser.format())?;
        let labels = manifest.labelled().then(|| labels(manifest, &utterances, recogniser)).transpose()?;
        Ok(Self { recogniser: recogniser.clone(), beams: config.num_beams, heard: utterances, labels, warnings })
    }

    /// The logits of one utterance's frames, `[1, frames, characters]`.
    fn logits(&self, network: &Network, index: usize, device: &Device) -> Result<Tensor<3>> {
        let utterance = self.heard.get(index).ok_or_else(|| {
            let error = Error::new(Subject::Data, "no such utterance").found(index);
            error.expected(format!("below {}", self.heard.len()))
        })?;
        let values = utterance.normalised(&self.recogniser.normalization)?;
        let shape = [1, 1, values.len()];
        let input = Tensor::from_data(TensorData::new(values, shape), device);
        match network {
            Network::Wav2Vec2(Wav2Vec2::Ctc(network)) => Ok(network.forward(input)),
            Network::Hubert(Hubert::Ctc(network)) => Ok(network.forward(input)),
            _ => Err(Network::unfit("speech recognition by CTC")),
        }
    }

    /// The loss of one utterance.
    fn own_loss(&self, logits: Tensor<3>, labels: &[usize]) -> Tensor<1> {
        let loss = ctc_loss(logits, labels, self.recogniser.vocabulary.blank(), self.recogniser.zero_infinity);
        #[expect(clippy::cast_precision_loss, reason = "a text has far fewer characters")]
        match self.recogniser.reduction {
            CtcLossReduction::Sum => loss,
            CtcLossReduction::Mean => loss.div_scalar(labels.len().max(1) as f32),
        }
    }

    fn hear(&self, network: &Network, index: usize, device: &Device) -> Result<Heard> {
        let logits = self.logits(network, index, device)?;
        let classes = logits.dims()[2];
        let log_probs = values::of(log_softmax(logits.clone(), 2));
        if log_probs.iter().any(|value| value.is_nan()) {
            return Err(Error::new(Subject::Diverged, "the network's output is not finite")
                .at(self.heard[index].path.display())
                .with_hint("the weights or the adapter are broken: `lowrank inspect` counts non-finite values"));
        }
        let labels = self.labels.as_ref().map(|labels| &labels[index]);
        let loss = labels.map_or(0.0, |labels| f64::from(self.own_loss(logits, labels).into_scalar::<f32>()));
        let (blank, beams) = (self.recogniser.vocabulary.blank(), self.beams);
        let ids = match beams {
            0 | 1 => greedy(&log_probs, classes, blank),
            beams => beam_search(&log_probs, classes, blank, beams),
        };
        Ok(Heard { log_probs, loss, ids })
    }

    fn text(&self, index: usize) -> Option<String> {
        Some(self.recogniser.vocabulary.decode(&self.labels.as_ref()?[index]))
    }

    fn prediction(&self, index: usize, heard: &Heard) -> Prediction {
        let (utterance, rate) = (&self.heard[index], self.recogniser.rate);
        #[expect(clippy::cast_precision_loss, reason = "a position in memory is far below 2^53")]
        let seconds = |samples: usize| utterance.start + samples as f64 / rate;
        let vocabulary = &self.recogniser.vocabulary;
        let (hop, blank) = (self.recogniser.grid.hop(), vocabulary.blank());
        let spans = align(&heard.log_probs, self.recogniser.outputs, &heard.ids, blank).unwrap_or_default();
        let characters: Vec<_> = heard.ids.iter().zip(spans).collect();
        let words = characters.split(|(id, _)| vocabulary.is_delimiter(**id)).filter_map(|word| {
            let ((_, first), (_, last)) = (word.first()?, word.last()?);
            let ids: Vec<usize> = word.iter().map(|(id, _)| **id).collect();
            Some(Word {
                text: vocabulary.decode(&ids),
                start: seconds(first.start * hop),
                end: seconds(last.end * hop),
            })
        });
        Prediction {
            path: utterance.path.display().to_string(),
            start: utterance.start,
            end: seconds(utterance.samples()),
            text: self.text(index),
            predicted: vocabulary.decode(&heard.ids),
            words: words.collect(),
        }
    }
}

/// The labels of the texts.
fn labels(manifest: &data::Manifest, utterances: &[Utterance], recogniser: &Recogniser) -> Result<Vec<Vec<usize>>> {
    let (mut all, mut errors) = (Vec::with_capacity(utterances.len()), Vec::new());
    for utterance in utterances {
        let text = manifest.labels().get(utterance.label).map_or("", String::as_str);
        let frames = recogniser.grid.frames(utterance.samples());
        match recogniser.vocabulary.encode(text) {
            Ok(labels) => {
                // A repeated character needs a blank between.
                let needed = labels.len() + labels.windows(2).filter(|pair| pair[0] == pair[1]).count();
                if needed > frames && !recogniser.zero_infinity {
                    let error = Error::new(Subject::Data, "a text longer than its recording")
                        .at(utterance.path.display())
                        .found(format!("{frames} frames"));
                    errors.push(error.expected(format!("at least {needed}")).with_hint("take the row out"));
                }
                all.push(labels);
            }
            Err(error) => errors.push(error.at(format!("\"{text}\"")).at(utterance.path.display())),
        }
    }
    Error::all(errors)?;
    Ok(all)
}

impl Examples for Utterances {
    fn len(&self) -> usize {
        self.heard.len()
    }

    fn unit(&self) -> &'static str {
        "utterance"
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The mean over the utterances, which are run one by one.
    fn loss(&self, network: &Network, indices: &[usize]) -> Result<Tensor<1>> {
        let device = network.device();
        let mut sum: Option<Tensor<1>> = None;
        for index in indices {
            let labels = self.labels.as_ref().and_then(|labels| labels.get(*index));
            let labels =
                labels.ok_or_else(|| Error::new(Subject::Data, "it is not known what is said").found(index))?;
            let loss = self.own_loss(self.logits(network, *index, &device)?, labels);
            sum = Some(match sum {
                Some(sum) => sum + loss,
                None => loss,
            });
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        let count = indices.len() as f32;
        sum.map(|sum| sum.div_scalar(count)).ok_or_else(|| Error::new(Subject::Data, "an empty batch"))
    }

    /// Word and character error rates, and the mean loss.
    fn evaluate(&self, network: &Network, _batch_size: usize) -> Result<tasks::Evaluation> {
        let device = network.device();
        let mut rows = Vec::with_capacity(self.len());
        for index in 0..self.len() {
            let heard = self.hear(network, index, &device)?;
            rows.push((
                self.text(index).unwrap_or_default(),
                self.recogniser.vocabulary.decode(&heard.ids),
                heard.loss,
            ));
        }
        let rows = rows.iter().map(|(said, heard, loss)| (said.as_str(), heard.as_str(), *loss));
        Ok(tasks::Evaluation::Ctc(Evaluation::of(rows)))
    }

    fn predict(&self, network: &Network, _batch_size: usize) -> Result<Predictions> {
        let device = network.device();
        let (mut predictions, mut labelled, mut exact) = (Predictions::default(), 0, 0);
        for index in 0..self.len() {
            let prediction = self.prediction(index, &self.hear(network, index, &device)?);
            labelled += u64::from(prediction.text.is_some());
            exact += u64::from(prediction.text.as_ref() == Some(&prediction.predicted));
            let name = self.heard[index].path.file_stem().map_or_else(String::new, |name| name.display().to_string());
            let name = name.split_whitespace().collect::<Vec<_>>().join("_");
            predictions.ctm.extend(
                prediction
                    .words
                    .iter()
                    .map(|word| format!("{name} 1 {:.3} {:.3} {}", word.start, word.end - word.start, word.text)),
            );
            predictions.push(&prediction)?;
        }
        let utterances = predictions.lines.len() as u64;
        predictions.counts = vec![("utterances", utterances), ("labelled", labelled), ("exact", exact)];
        Ok(predictions)
    }
}

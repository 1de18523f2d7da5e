//! Beam search, as transformers' `generate` does it for one window with `early_stopping = False`.
//!
//! Of each window the likeliest `beams` unfinished texts go on. A text that ends among the `beams` best continuations is
//! finished, with its log-probability over its length to the power of `length_penalty`. The search of a window is over when
//! `beams` texts are finished and the best unfinished one scores no better than the worst of them at its present length.

use burn::tensor::Tensor;
use lowrank::Result;

use super::greedy::rows_of;
use super::{Generated, Generation, Whisper};

/// An unfinished text.
#[derive(Debug, Clone, Default)]
struct Beam {
    text: Generated,
    log_prob: f64,
    /// Its row in the last batch.
    row: usize,
}

/// The search in one window.
#[derive(Debug)]
struct Window {
    running: Vec<Beam>,
    /// Scores and texts, the best first.
    finished: Vec<(f64, Generated)>,
    over: bool,
}

/// A text with one more token.
struct Continuation<'a> {
    beam: &'a Beam,
    token: u32,
    own: f32,
    log_prob: f64,
}

pub(super) fn search(
    whisper: &Whisper,
    heard: &Tensor<3>,
    generation: &Generation,
    beams: usize,
) -> Result<Vec<Generated>> {
    let begin = |row| Window { running: vec![Beam { row, ..Beam::default() }], finished: Vec::new(), over: false };
    let mut windows: Vec<Window> = (0..heard.dims()[0]).map(begin).collect();
    let mut cache = whisper.model.decoder.begin(heard);
    let mut tokens = generation.prompt.repeat(windows.len());
    let room = generation.room();
    for said in 0..room {
        let rows: usize = windows.iter().map(Window::rows).sum();
        let mut log_probs = whisper.next(&tokens, rows, &mut cache)?;
        for row in &mut log_probs {
            generation.suppress(said, row);
        }
        for window in windows.iter_mut().filter(|window| !window.over) {
            window.step(&log_probs, generation, beams, said + 1 == room);
        }
        let going: Vec<&mut Beam> =
            windows.iter_mut().filter(|window| !window.over).flat_map(|w| &mut w.running).collect();
        if going.is_empty() {
            break;
        }
        tokens = going.iter().filter_map(|beam| beam.text.tokens.last().copied()).collect();
        let parents: Vec<usize> = going.iter().map(|beam| beam.row).collect();
        cache = cache.of_rows(&rows_of(&parents, heard));
        for (row, beam) in going.into_iter().enumerate() {
            beam.row = row;
        }
    }
    Ok(windows.into_iter().map(Window::best).collect())
}

impl Window {
    /// Rows of the batch that are its own.
    fn rows(&self) -> usize {
        if self.over { 0 } else { self.running.len() }
    }

    /// Takes the next token of every running text; with `last`, all of them end.
    fn step(&mut self, log_probs: &[Vec<f32>], generation: &Generation, beams: usize, last: bool) {
        let length = self.running.first().map_or(0, |beam| beam.text.tokens.len()) + 1;
        let score = |log_prob: f64| log_prob / power(length, generation.length_penalty);
        let running = std::mem::take(&mut self.running);
        let kept = (1 + generation.ends.len()).max(2) * beams;
        for (rank, next) in best(&running, log_probs, kept).into_iter().enumerate() {
            let ends = generation.ends.contains(&next.token);
            if !(ends || last) {
                if self.running.len() < beams {
                    self.running.push(next.beam());
                }
            } else if rank < beams {
                let score = score(next.log_prob);
                let place = self.finished.iter().take_while(|(other, _)| *other >= score).count();
                let text = if ends { next.beam.text.clone() } else { next.beam().text };
                self.finished.insert(place, (score, text));
                self.finished.truncate(beams);
            }
        }
        let worst = self.finished.get(beams - 1).map(|(score, _)| *score);
        let hopeless = |worst: f64| self.running.first().is_none_or(|beam| score(beam.log_prob) <= worst);
        self.over = last || worst.is_some_and(hopeless);
    }

    fn best(self) -> Generated {
        let unfinished = self.running.into_iter().next().map(|beam| beam.text);
        self.finished.into_iter().next().map(|(_, text)| text).or(unfinished).unwrap_or_default()
    }
}

impl Continuation<'_> {
    fn beam(&self) -> Beam {
        let mut text = self.beam.text.clone();
        text.tokens.push(self.token);
        text.log_probs.push(self.own);
        Beam { text, log_prob: self.log_prob, row: self.beam.row }
    }
}

/// The likeliest `count` continuations of texts, the best first.
fn best<'a>(running: &'a [Beam], log_probs: &[Vec<f32>], count: usize) -> Vec<Continuation<'a>> {
    let mut found: Vec<Continuation<'a>> = Vec::with_capacity(count + 1);
    for beam in running {
        for (token, own) in (0..).zip(log_probs.get(beam.row).into_iter().flatten().copied()) {
            let log_prob = beam.log_prob + f64::from(own);
            let enough = found.len() == count && found.last().is_some_and(|last| last.log_prob >= log_prob);
            if enough || own == f32::NEG_INFINITY {
                continue;
            }
            let place = found.partition_point(|other| other.log_prob >= log_prob);
            found.insert(place, Continuation { beam, token, own, log_prob });
            found.truncate(count);
        }
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "a text has few tokens")]
fn power(length: usize, exponent: f64) -> f64 {
    (length as f64).powf(exponent)
}

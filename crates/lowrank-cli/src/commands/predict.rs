//! `lowrank predict`: what a model says about recordings.

use std::path::Path;

use lowrank::{Error, Subject, files};
use lowrank_burn::data::Split;
use lowrank_burn::tasks::{Manifest, Predictions, transcription};
use serde_json::{Map, Value, json};

use super::model::Model;
use super::{Exit, Failure};
use crate::args::PredictArgs;
use crate::output::{self, Output};

/// Predicts.
pub fn run(args: &PredictArgs, output: Output) -> Result<Exit, Failure> {
    let model = Model::load(&args.model, output)?;
    let manifest = match &args.manifest {
        Some(path) => model.manifest(path)?,
        None => model.recordings(&args.input)?,
    };
    let mut predictions = Predictions::default();
    for split in splits(args, &manifest) {
        predictions.extend(model.predict(&manifest, split)?);
    }
    write(args, &predictions, output)?;
    Ok(Exit::Done)
}

/// The form that a file's name asks for, where it is not JSON lines.
fn ending(path: &Path) -> Option<&'static str> {
    let own = path.extension()?;
    ["srt", "ctm"].into_iter().find(|known| own.eq_ignore_ascii_case(known))
}

fn no_words(path: &Path) -> Error {
    Error::new(Subject::Config, "a CTM file holds words with times, and this model tells none")
        .at(path.display())
        .with_hint("name the output .jsonl")
}

/// The splits to predict, in the order they are used.
fn splits(args: &PredictArgs, manifest: &Manifest) -> Vec<Split> {
    match args.split {
        Some(split) => vec![split],
        None => Split::ALL.into_iter().filter(|split| manifest.has(*split)).collect(),
    }
}

fn write(args: &PredictArgs, predictions: &Predictions, output: Output) -> Result<(), Failure> {
    let Predictions { lines, ctm, counts } = predictions;
    let text = |lines: &[String]| lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
    let summary: Map<_, _> = counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
    match &args.output {
        Some(path) => {
            let text = match ending(path) {
                Some("srt") => transcription::subtitles(predictions)?,
                Some("ctm") if ctm.is_empty() && !lines.is_empty() => return Err(no_words(path).into()),
                Some("ctm") => text(ctm),
                _ => text(lines),
            };
            files::write(path, text.as_bytes())?;
            if output.json {
                let path = path.display().to_string();
                output::object(&json!({ "output": path, "summary": summary }))?;
            }
        }
        None if output.json => {
            let predictions: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
            output::object(&json!({ "predictions": predictions, "summary": summary }))?;
        }
        None => output::print(&text(lines))?,
    }
    let told: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    output.say(told.join(", "));
    Ok(())
}

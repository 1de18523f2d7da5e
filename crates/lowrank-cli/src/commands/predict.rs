//! `lowrank predict`: what a model says about recordings.

use lowrank::files;
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

/// The splits to predict, in the order they are used.
fn splits(args: &PredictArgs, manifest: &Manifest) -> Vec<Split> {
    match args.split {
        Some(split) => vec![split],
        None => Split::ALL.into_iter().filter(|split| manifest.has(*split)).collect(),
    }
}

fn write(args: &PredictArgs, predictions: &Predictions, output: Output) -> Result<(), Failure> {
    let Predictions { lines, counts } = predictions;
    let jsonl = || lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
    let summary: Map<_, _> = counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
    match &args.output {
        Some(path) => {
            let subtitled = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("srt"));
            let text = if subtitled { transcription::subtitles(predictions)? } else { jsonl() };
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
        None => output::print(&jsonl())?,
    }
    let told: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    output.say(told.join(", "));
    Ok(())
}

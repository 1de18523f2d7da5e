//! `lowrank predict`: the class of every window of recordings.

use lowrank::Result;
use lowrank::files;
use lowrank_burn::data::{Dataset, Manifest, Split};
use lowrank_burn::train::Prediction;
use serde::Serialize;
use serde_json::json;

use super::model::Model;
use super::{Exit, Failure};
use crate::args::PredictArgs;
use crate::output::{self, Output};

/// One line of the output.
#[derive(Debug, Serialize)]
struct Line {
    path: String,
    /// In seconds.
    start: f64,
    /// In seconds.
    end: f64,
    /// What the manifest says it is; none without a manifest.
    label: Option<String>,
    predicted: String,
    logits: Vec<f32>,
}

/// Predicts.
pub fn run(args: &PredictArgs, output: Output) -> Result<Exit, Failure> {
    let model = Model::load(&args.model, output)?;
    let labels = &model.config.labels;
    let manifest = match &args.manifest {
        Some(path) => Manifest::read(path, Some(labels))?,
        None => Manifest::of_recordings(&args.input, labels)?,
    };
    let manifest = model.read_as_asked(manifest);
    let mut lines = Vec::new();
    for split in splits(args, &manifest) {
        let dataset = Dataset::load(&manifest, split, &model.config.signal)?;
        dataset.warnings().iter().for_each(|warning| output.warn(warning));
        let known = args.manifest.is_some();
        lines.extend(model.predictions(&dataset)?.into_iter().map(|prediction| Line::of(prediction, known)));
    }
    write(args, &lines, output)?;
    Ok(Exit::Done)
}

/// The splits to predict, in the order they are used.
fn splits(args: &PredictArgs, manifest: &Manifest) -> Vec<Split> {
    let there = |split: &Split| manifest.recordings().iter().any(|recording| recording.split == *split);
    match args.split {
        Some(split) => vec![split],
        None => Split::ALL.into_iter().filter(there).collect(),
    }
}

impl Line {
    fn of(prediction: Prediction, known: bool) -> Self {
        let Prediction { path, start, end, label, predicted, logits } = prediction;
        Self { path, start, end, label: known.then_some(label), predicted, logits }
    }
}

fn write(args: &PredictArgs, lines: &[Line], output: Output) -> Result<(), Failure> {
    let jsonl = || {
        let lines = lines.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>();
        lines.map(|lines| lines.into_iter().map(|line| line + "\n").collect::<String>())
    };
    let labelled: Vec<_> = lines.iter().filter(|line| line.label.is_some()).collect();
    let right = labelled.iter().filter(|line| line.label.as_ref() == Some(&line.predicted)).count();
    let summary = json!({ "windows": lines.len(), "labelled": labelled.len(), "right": right });
    match &args.output {
        Some(path) => {
            let text = jsonl().map_err(|error| Failure::Stdout(error.into()))?;
            files::write(path, text.as_bytes())?;
            if output.json {
                let path = path.display().to_string();
                output::object(&json!({ "output": path, "summary": summary }))?;
            }
        }
        None if output.json => output::object(&json!({ "predictions": lines, "summary": summary }))?,
        None => output::print(&jsonl().map_err(|error| Failure::Stdout(error.into()))?)?,
    }
    if labelled.is_empty() {
        output.say(format_args!("{} windows", lines.len()));
    } else {
        output.say(format_args!("{} windows, {right} of {} as labelled", lines.len(), labelled.len()));
    }
    Ok(())
}

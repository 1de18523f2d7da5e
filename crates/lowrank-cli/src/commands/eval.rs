//! `lowrank eval`: how well a model does on one split.

use std::fmt::{self, Display};

use lowrank_burn::tasks::Evaluation;
use serde::Serialize;

use super::model::Model;
use super::{Exit, Failure};
use crate::args::EvalArgs;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    adapter: Option<String>,
    manifest: String,
    split: &'static str,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// Evaluates.
pub fn run(args: &EvalArgs, output: Output) -> Result<Exit, Failure> {
    let model = Model::load(&args.model, output)?;
    let evaluation = model.evaluate(&model.manifest(&args.manifest)?, args.split)?;
    output.result(&Report {
        model: args.model.model.display().to_string(),
        adapter: args.model.adapter.as_ref().map(|dir| dir.display().to_string()),
        manifest: args.manifest.display().to_string(),
        split: args.split.name(),
        evaluation,
    })?;
    Ok(Exit::Done)
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.evaluation)
    }
}

//! `modules_to_save`: modules that train in full.

use std::collections::HashSet;

use super::names::ends;
use super::survey::Chosen;
use super::{Findings, ModuleInfo, hint};
use crate::config::LoraConfig;
use crate::{Error, Subject};

/// Containers, which have no parameters of their own and are called by their items.
const CONTAINERS: [&str; 4] = ["ModuleList", "ModuleDict", "ParameterList", "ParameterDict"];

/// A name whose modules are saved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    /// Whether the task asks for it: then it need not be there, as models call their head one way or the other.
    by_task: bool,
}

/// The names in `modules_to_save`, and those of the heads that the task saves.
pub(super) fn names(config: &LoraConfig) -> impl Iterator<Item = Name<'_>> {
    let heads: &[&str] = match config.task_type.as_deref() {
        Some("SEQ_CLS" | "TOKEN_CLS") => &["classifier", "score"],
        Some("QUESTION_ANS") => &["qa_outputs"],
        _ => &[],
    };
    let configured = config.modules_to_save.as_deref().unwrap_or_default();
    let further = heads.iter().filter(|head| !configured.iter().any(|name| name == *head));
    let configured = configured.iter().map(|text| Name { text, by_task: heads.contains(&text.as_str()) });
    configured.chain(further.map(|text| Name { text, by_task: true }))
}

/// The paths that end with a name in `modules_to_save`, without those inside another.
pub(super) fn modules(
    config: &LoraConfig,
    modules: &[&ModuleInfo],
    targets: &[Chosen<'_>],
    findings: &mut Findings,
) -> Vec<String> {
    let wrong = |problem: String| Error::new(Subject::Target, problem).at("modules_to_save");
    let mut saved = HashSet::new();
    let mut heads_missing = Vec::new();
    for name in names(config) {
        let mut found = modules.iter().filter(|module| module.path.ends_with(name.text)).peekable();
        match found.peek() {
            None if name.by_task => heads_missing.push(name.text),
            None => {
                let error = wrong(format!("`{}` matches no module", name.text));
                findings.errors.push(error.with_hint(hint::nearest(name.text, modules.iter().copied())));
            }
            Some(_) => {}
        }
        for module in found {
            if CONTAINERS.contains(&module.class.as_str()) {
                let error = wrong(format!("module `{}` is a {}, which cannot be saved", module.path, module.class));
                findings.errors.push(error.with_hint("name the modules in it"));
            }
            saved.insert(module.path.as_str());
        }
    }
    if saved.is_empty() && !heads_missing.is_empty() {
        let task = config.task_type.as_deref().unwrap_or_default();
        findings
            .warnings
            .push(format!("task_type {task} saves {}, which the model does not have", heads_missing.join(" and ")));
    }
    let inside = |path: &str| starts(path).any(|start| saved.contains(start));
    for target in targets.iter().filter(|target| saved.contains(target.path) || inside(target.path)) {
        let error = wrong(format!("module `{}` would be saved in full and have an adapter", target.path));
        findings
            .errors
            .push(error.with_hint("a name also matches where a longer name ends with it: write more of the path"));
    }
    let outermost = modules.iter().map(|module| module.path.as_str());
    let outermost = outermost.filter(|path| saved.contains(path) && !inside(path));
    outermost.map(Into::into).collect()
}

/// The paths of the modules that the one at `path` is in.
fn starts(path: &str) -> impl Iterator<Item = &str> {
    ends(path).filter_map(|end| path.get(..path.len() - end.len() - 1))
}

//! `trainable_token_indices`: embeddings of which single rows train.

use super::survey::Chosen;
use super::{Findings, ModuleInfo, hint};
use crate::adapter::LayerKind;
use crate::config::{LoraConfig, TokenIndices};
use crate::{Error, Subject};

/// The modules that the names stand for, each with its rows.
pub(super) fn modules(
    config: &LoraConfig,
    modules: &[&ModuleInfo],
    targets: &[Chosen<'_>],
    saved: &[String],
    findings: &mut Findings,
) -> Vec<(String, Vec<usize>)> {
    let Some(tokens) = &config.trainable_token_indices else { return Vec::new() };
    let wrong = |problem: String| Error::new(Subject::Target, problem).at("trainable_token_indices");
    for (name, _) in tokens.entries().filter(|(name, _)| find(tokens, name, modules).is_empty()) {
        let embeddings = modules.iter().copied().filter(|module| is_embedding(module));
        let error = wrong(format!("`{name}` matches no module"));
        findings.errors.push(match tokens {
            TokenIndices::Modules(_) => error.with_hint(hint::nearest(name, embeddings)),
            TokenIndices::Embedding(_) => error.with_hint("say which embedding is meant: {\"its name\": [rows]}"),
        });
    }
    let mut found = Vec::<(String, Vec<usize>)>::new();
    for (name, indices) in tokens.entries() {
        for module in find(tokens, name, modules) {
            if found.iter().any(|(path, _)| *path == module.path) {
                continue;
            }
            let problems = problems(module, indices, targets, saved);
            findings
                .errors
                .extend(problems.into_iter().map(|problem| wrong(format!("module `{}` {problem}", module.path))));
            found.push((module.path.clone(), indices.to_vec()));
        }
    }
    found
}

/// The modules that a name stands for: the end of their path, without asking for a dot before it, as in PEFT. A list without
/// names is for the model's embedding, which PEFT asks the model for.
fn find<'a>(tokens: &TokenIndices, name: &str, modules: &[&'a ModuleInfo]) -> Vec<&'a ModuleInfo> {
    let named: Vec<_> = modules.iter().copied().filter(|module| module.path.ends_with(name)).collect();
    if !named.is_empty() || matches!(tokens, TokenIndices::Modules(_)) {
        return named;
    }
    let embeddings: Vec<_> = modules.iter().copied().filter(|module| is_embedding(module)).collect();
    if embeddings.len() == 1 { embeddings } else { Vec::new() }
}

fn is_embedding(module: &ModuleInfo) -> bool {
    module.layer.as_ref().is_some_and(|layer| layer.kind() == LayerKind::Embedding)
}

/// Why the rows of a module cannot be trained.
fn problems(module: &ModuleInfo, indices: &[usize], targets: &[Chosen<'_>], saved: &[String]) -> Vec<String> {
    let Some(layer) = module.layer.as_ref().filter(|_| is_embedding(module)) else {
        return vec![format!("is a {}, and only rows of an Embedding can be trained", module.class)];
    };
    let mut problems = Vec::new();
    if let Some(index) = indices.iter().find(|index| **index >= layer.in_features()) {
        problems.push(format!("has {} rows, and no row {index}", layer.in_features()));
    }
    if targets.iter().any(|target| target.path == module.path) {
        problems.push("has an adapter as well: leave it out of the targets, or name it in exclude_modules".into());
    }
    let inside = |saved: &String| module.path == *saved || module.path.starts_with(&format!("{saved}."));
    if saved.iter().any(inside) {
        problems.push("is in modules_to_save as well, where it trains in full".into());
    }
    problems
}

//! What a configuration may say: ranges, keys that exclude each other, patterns that can be matched.

use std::collections::HashSet;

use super::{InitLoraWeights, LoraConfig, Patterns, TokenIndices};
use crate::suggest::nearest;
use crate::target::{Pattern, Role, check_length};
use crate::{Error, Result, Subject};

/// The largest rank. No layer of a published model has a side as long.
pub const MAX_RANK: usize = 1 << 16;

/// The most keys of one configuration that need a regular expression engine; names with dots, anchored or not, do not
/// count. Each may take a megabyte.
pub const MAX_REGEXES: usize = 128;

const TASKS: [&str; 6] = ["SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"];

/// What a configuration is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Making factors and training them.
    Training,
    /// Using factors that exist.
    Loading,
}

/// Errors, each with the key it is about.
pub(super) type Problems = Vec<(&'static str, Error)>;

impl LoraConfig {
    /// Checks that an adapter can be made and trained with this configuration.
    ///
    /// # Errors
    /// Every one of these at once: a value out of range; keys that exclude each other; a pattern that is no Python
    /// regular expression, or uses what is not supported in one; a feature that is not supported, by name with what it
    /// would need; a setting without effect.
    pub fn validate(&self) -> Result<()> {
        all(self.problems(Purpose::Training))
    }

    /// Checks that a finished adapter with this configuration can be used.
    ///
    /// More passes than in [`validate`](Self::validate): settings that only concern the start of training, among them
    /// initialisations that leave the base model as it is (`eva`, `orthogonal`, `mica`). Initialisations that change
    /// the base model do not: the factors in the file belong to the changed one.
    ///
    /// # Errors
    /// Every one of these at once: a value out of range; keys that exclude each other; a pattern that is no Python
    /// regular expression; a feature that is not supported, by name with what it would need.
    pub fn validate_for_loading(&self) -> Result<()> {
        all(self.problems(Purpose::Loading))
    }

    pub(super) fn problems(&self, purpose: Purpose) -> Problems {
        let mut problems = self.out_of_range(purpose);
        problems.extend(self.contradictions(purpose));
        problems.extend(self.bad_patterns());
        problems.extend(self.unsupported(purpose));
        problems
    }

    fn out_of_range(&self, purpose: Purpose) -> Problems {
        let mut problems = Vec::new();
        let rank_range = format!("1 to {MAX_RANK}");
        if !(1..=MAX_RANK).contains(&self.r) {
            problems.push(("r", error("rank out of range").found(self.r).expected(&rank_range)));
        }
        for (key, rank) in &self.rank_pattern {
            if !(1..=MAX_RANK).contains(rank) {
                let error = error(format!("rank of `{key}` out of range"));
                problems.push(("rank_pattern", error.found(rank).expected(&rank_range)));
            }
        }
        problems.extend(alpha_problem("alpha", self.lora_alpha, purpose).map(|error| ("lora_alpha", error)));
        for (key, alpha) in &self.alpha_pattern {
            let error = alpha_problem(&format!("alpha of `{key}`"), *alpha, purpose);
            problems.extend(error.map(|error| ("alpha_pattern", error)));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            let error = error("probability out of range").found(self.lora_dropout).expected("at least 0 and below 1");
            problems.push(("lora_dropout", error));
        }
        if let Some(task) = self.task_type.as_deref().filter(|task| !TASKS.contains(task)) {
            let error =
                error("unknown task").found(format!("{task:?}")).expected(format!("one of {}", TASKS.join(", ")));
            problems.push(("task_type", suggest(error, task, &TASKS)));
        }
        problems
    }

    fn contradictions(&self, purpose: Purpose) -> Problems {
        let mut problems = Vec::new();
        if matches!(self.target_modules, Some(Patterns::Regex(_))) {
            let hint = "put the layers into the pattern, or list the modules' names in target_modules";
            let clash = || error("cannot be used when target_modules is a string").with_hint(hint);
            if self.layers_to_transform.is_some() {
                problems.push(("layers_to_transform", clash()));
            }
            if self.layers_pattern.is_some() {
                problems.push(("layers_pattern", clash()));
            }
        } else if self.layers_to_transform.is_none()
            && self.layers_pattern.as_ref().is_some_and(|patterns| patterns.entries().iter().any(|one| !one.is_empty()))
        {
            let error = error("has no effect without layers_to_transform");
            problems.push(("layers_pattern", error.with_hint("set layers_to_transform to the layers' numbers")));
        }
        if self.lora_bias && !matches!(self.init_lora_weights, InitLoraWeights::True | InitLoraWeights::False) {
            let error = error("needs init_lora_weights to be true or false");
            problems.push(("lora_bias", error.with_hint("leave init_lora_weights out, or set lora_bias to false")));
        }
        if self.lora_bias && self.use_dora {
            let error = error("cannot be used with use_dora");
            problems.push(("lora_bias", error.with_hint("set one of the two to false")));
        }
        problems.extend(self.token_problems());
        problems.extend(self.initialisation_tables(purpose));
        if self.use_dora && self.init_lora_weights == InitLoraWeights::Mica {
            let error = error("cannot be used with use_dora: PEFT has no such adapter");
            problems
                .push(("init_lora_weights", error.with_hint("set use_dora to false, or init_lora_weights to true")));
        }
        problems
    }

    fn token_problems(&self) -> Problems {
        let mut problems = Vec::new();
        let saved = self.modules_to_save.as_deref().unwrap_or_default();
        for (name, indices) in self.trainable_token_indices.iter().flat_map(TokenIndices::entries) {
            let mut seen = HashSet::new();
            if name.is_empty() {
                problems.push(("trainable_token_indices", error("empty name")));
            }
            if indices.is_empty() {
                let error = error(format!("no row of `{name}` would train"));
                problems
                    .push(("trainable_token_indices", error.with_hint("leave it out, or name rows by their number")));
            }
            if let Some(twice) = indices.iter().find(|index| !seen.insert(**index)) {
                let error = error(format!("row {twice} of `{name}` is there twice"));
                problems.push(("trainable_token_indices", error.with_hint("name each row once")));
            }
            if saved.iter().any(|saved| saved == name) {
                let error = error(format!("`{name}` is in modules_to_save, where it trains in full"));
                problems.push(("trainable_token_indices", error.with_hint("name it in one of the two")));
            }
        }
        problems
    }

    fn bad_patterns(&self) -> Problems {
        let mut check = PatternCheck::default();
        for (key, patterns) in [("target_modules", &self.target_modules), ("exclude_modules", &self.exclude_modules)] {
            match patterns {
                Some(Patterns::Regex(pattern)) => check.pattern(key, pattern, Role::Path),
                Some(Patterns::List(names)) => names.iter().for_each(|name| check.name(key, name)),
                None => {}
            }
        }
        for name in self.modules_to_save.iter().flatten() {
            check.pattern("modules_to_save", name, Role::Saved);
        }
        for pattern in layer_patterns(self.layers_pattern.as_ref()) {
            check.pattern("layers_pattern", pattern, Role::Layers);
        }
        for (key, _) in &self.rank_pattern {
            check.pattern("rank_pattern", key, Role::Key);
        }
        for (key, _) in &self.alpha_pattern {
            check.pattern("alpha_pattern", key, Role::Key);
        }
        check.problems
    }
}

/// The entries of `layers_pattern`: none for the empty string, which PEFT takes for no pattern.
pub(crate) fn layer_patterns(patterns: Option<&Patterns>) -> &[String] {
    patterns.map(Patterns::entries).filter(|entries| entries != &[""]).unwrap_or_default()
}

/// Finds patterns that cannot be compiled. Stops compiling when there are too many, so that checking a hostile file
/// costs no more than using an honest one.
#[derive(Default)]
struct PatternCheck {
    regexes: usize,
    problems: Problems,
}

impl PatternCheck {
    fn name(&mut self, key: &'static str, name: &str) {
        let problem = if name.is_empty() { Err(error("empty name")) } else { check_length(name) };
        self.problems.extend(problem.err().map(|error| (key, error)));
    }

    fn pattern(&mut self, key: &'static str, pattern: &str, role: Role) {
        if pattern.is_empty() {
            return self.problems.push((key, error("empty name")));
        }
        if self.regexes > MAX_REGEXES {
            return;
        }
        match Pattern::new(pattern, role) {
            Ok(pattern) if pattern.is_plain() => {}
            Ok(_) => self.regexes += 1,
            Err(error) => {
                self.regexes += 1;
                self.problems.push((key, error));
            }
        }
        if self.regexes > MAX_REGEXES {
            let error = error("too many regular expressions").expected(format!("at most {MAX_REGEXES} in all"));
            self.problems.push((key, error.with_hint("join them with `|`, or write plain names")));
        }
    }
}

fn all(problems: Problems) -> Result<()> {
    Error::all(problems.into_iter().map(|(key, error)| error.at(key)).collect())
}

/// A configuration error.
pub(super) fn error(problem: impl Into<String>) -> Error {
    Error::new(Subject::Config, problem)
}

/// `error` with the candidate nearest to `word` as its hint, if one is near.
pub(super) fn suggest(error: Error, word: &str, candidates: &[&str]) -> Error {
    match nearest(word, candidates.iter().copied()) {
        Some(right) => error.with_hint(format!("did you mean {right:?}?")),
        None => error,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the cast is the check")]
fn alpha_problem(name: &str, alpha: f64, purpose: Purpose) -> Option<Error> {
    if !(alpha as f32).is_finite() {
        return Some(error(format!("{name} out of range")).found(alpha).expected("a number that f32 can hold"));
    }
    (alpha == 0.0 && purpose == Purpose::Training).then(|| {
        let error = error(format!("{name} is 0, so that nothing would train"));
        error.with_hint("alphas of r to 2 r are usual; to leave a module out, use exclude_modules")
    })
}

//! The rank and the scale of each target.

use std::collections::BTreeMap;

use super::hint::listed;
use super::pattern::{Pattern, Role};
use super::survey::Chosen;
use super::{ATTENTION, Findings, Target, hint};
use crate::adapter::{GroupMode, Layer, LayerKind};
use crate::config::LoraConfig;
use crate::{Error, Result, Subject};

/// `chosen` with rank, alpha and scale, which are checked against the layers.
pub(super) fn targets(config: &LoraConfig, chosen: &[Chosen<'_>], findings: &mut Findings) -> Result<Vec<Target>> {
    let ranks = look_up("rank_pattern", &config.rank_pattern, config.r, chosen, findings)?;
    let alphas = look_up("alpha_pattern", &config.alpha_pattern, config.lora_alpha, chosen, findings)?;
    let targets: Vec<_> = std::iter::zip(chosen, std::iter::zip(ranks, alphas))
        .map(|(chosen, (rank, alpha))| Target {
            path: chosen.module.path.clone(),
            layer: chosen.layer.clone(),
            pattern: chosen.pattern.into(),
            rank,
            alpha,
            scale: config.scaling(alpha, rank),
            mode: config.group_mode,
        })
        .collect();
    check_ranks(&targets, findings);
    check_kinds(config, &targets, findings);
    check_attentions(config, chosen, findings);
    Ok(targets)
}

/// The value for each of `chosen`: of the first pattern that matches, or `default`.
fn look_up<T: Copy>(
    key: &str,
    patterns: &[(String, T)],
    default: T,
    chosen: &[Chosen<'_>],
    findings: &mut Findings,
) -> Result<Vec<T>> {
    let mut values = vec![None; chosen.len()];
    // Pattern by pattern, so that only one compiled pattern is held at a time.
    for (text, value) in patterns {
        let pattern = Pattern::new(text, Role::Key)?;
        let (mut matched, mut used) = (false, false);
        for (chosen, slot) in std::iter::zip(chosen, &mut values) {
            if pattern.matches(chosen.path)? {
                matched = true;
                used |= slot.is_none();
                slot.get_or_insert(*value);
            }
        }
        if !matched {
            let error = Error::new(Subject::Target, format!("`{text}` matches no targeted module")).at(key);
            findings.errors.push(error.with_hint(hint::nearest(text, chosen.iter().map(|chosen| chosen.module))));
        } else if !used {
            findings.warnings.push(format!("{key}: `{text}` has no effect: earlier keys match all its modules"));
        }
    }
    Ok(values.into_iter().map(|value| value.unwrap_or(default)).collect())
}

fn check_ranks(targets: &[Target], findings: &mut Findings) {
    let mut indivisible: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    let mut excessive: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for target in targets {
        let groups = target.layer.groups();
        let limit = rank_limit(&target.layer, target.mode);
        if target.mode != GroupMode::Shared && target.rank % groups != 0 {
            indivisible.entry((target.rank, groups)).or_default().push(&target.path);
        } else if target.rank > limit {
            excessive.entry((target.rank, limit)).or_default().push(&target.path);
        }
    }
    for ((rank, groups), paths) in indivisible {
        let error = Error::new(Subject::Target, "rank is no multiple of the convolution's groups")
            .at(listed(paths.into_iter()))
            .found(format!("rank {rank}"))
            .expected(format!("a multiple of {groups}"));
        let hint = "set such a rank in rank_pattern, or group_mode to shared, which takes any rank";
        findings.errors.push(error.with_hint(hint));
    }
    for ((rank, limit), paths) in excessive {
        findings.warnings.push(format!(
            "{}: rank {rank} is more than the weight can use: rank {limit} reaches every change of it",
            listed(paths.into_iter())
        ));
    }
}

/// The rank from which on a higher one adds nothing.
fn rank_limit(layer: &Layer, mode: GroupMode) -> usize {
    let groups = layer.groups();
    match mode {
        GroupMode::PerGroup if groups > 1 => {
            let columns: usize = layer.a_shape(1, mode).iter().product();
            groups * columns.min(layer.out_features() / groups)
        }
        GroupMode::Dense if groups > 1 => usize::MAX,
        _ => layer.max_rank(),
    }
}

/// PEFT's file has no place for a magnitude or a bias on an attention.
fn check_attentions(config: &LoraConfig, chosen: &[Chosen<'_>], findings: &mut Findings) {
    let attentions: Vec<_> = chosen.iter().filter(|chosen| chosen.module.class == ATTENTION).collect();
    if attentions.is_empty() {
        return;
    }
    for (key, _) in [("use_dora", config.use_dora), ("lora_bias", config.lora_bias)].iter().filter(|(_, set)| *set) {
        let error = Error::new(Subject::Target, "an adapter on a MultiheadAttention has none").at(key);
        let error = error.found(listed(attentions.iter().map(|chosen| chosen.path)));
        findings.errors.push(error.with_hint(format!("set {key} to false, or name them in exclude_modules")));
    }
}

fn check_kinds(config: &LoraConfig, targets: &[Target], findings: &mut Findings) {
    let of_kind = |kind| -> Vec<&str> {
        let targets = targets.iter().filter(|target| target.layer.kind() == kind);
        targets.map(|target| target.path.as_str()).collect()
    };
    let embeddings = of_kind(LayerKind::Embedding);
    if config.lora_bias && !embeddings.is_empty() {
        let error = Error::new(Subject::Target, "an adapter on an Embedding has no bias").at("lora_bias");
        let error = error.found(listed(embeddings.into_iter()));
        findings.errors.push(error.with_hint("set lora_bias to false, or name the embeddings in exclude_modules"));
    }
    let linears = of_kind(LayerKind::Linear);
    if config.fan_in_fan_out && !linears.is_empty() {
        let linears = listed(linears.into_iter());
        findings.warnings.push(format!("fan_in_fan_out has no effect on Linear layers: {linears}"));
    }
}

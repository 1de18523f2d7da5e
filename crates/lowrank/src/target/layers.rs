//! `layers_to_transform` and `layers_pattern`.

use super::pattern::{InLayer, Pattern, Role};
use crate::Result;
use crate::config::{LayerIndices, LoraConfig, layer_patterns};

/// The layers that targets named by the end of their path must be in.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    pub(super) wanted: &'a [usize],
    patterns: Vec<Pattern>,
}

impl<'a> Layers<'a> {
    /// The restriction that `config` makes; `None` for none, which an empty list is as well.
    pub(super) fn new(config: &'a LoraConfig) -> Result<Option<Self>> {
        let wanted = config.layers_to_transform.as_ref().map(LayerIndices::indices).unwrap_or_default();
        if wanted.is_empty() {
            return Ok(None);
        }
        let patterns = match layer_patterns(config.layers_pattern.as_ref()) {
            [] => vec![Pattern::any_layer()?],
            patterns => patterns.iter().map(|pattern| Pattern::new(pattern, Role::Layers)).collect::<Result<_>>()?,
        };
        Ok(Some(Self { wanted, patterns }))
    }

    /// The layer that `path` is in by the first pattern that matches, and that pattern's place in `layers_pattern`.
    pub(super) fn of(&self, path: &str) -> Result<Option<(usize, InLayer)>> {
        for (place, pattern) in self.patterns.iter().enumerate() {
            let layer = pattern.layer(path)?;
            if layer != InLayer::None {
                return Ok(Some((place, layer)));
            }
        }
        Ok(None)
    }
}

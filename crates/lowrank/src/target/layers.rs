//! `layers_to_transform` and `layers_pattern`.

use super::pattern::{Pattern, Role};
use crate::Result;
use crate::config::{LayerIndices, LoraConfig, layer_patterns};

/// The layers that targets named by the end of their path must be in.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    pub(super) wanted: &'a [usize],
    patterns: Vec<Pattern>,
}

/// The layer that a path is in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct InLayer {
    /// The place of the pattern that matched, in `layers_pattern`.
    pub(super) pattern: usize,
    /// The layer's number, when the pattern took one.
    pub(super) index: Option<usize>,
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

    /// The layer that the first pattern which matches `path` finds.
    pub(super) fn of(&self, path: &str) -> Result<Option<InLayer>> {
        for (place, pattern) in self.patterns.iter().enumerate() {
            if let Some(index) = pattern.layer_index(path)? {
                return Ok(Some(InLayer { pattern: place, index }));
            }
        }
        Ok(None)
    }
}

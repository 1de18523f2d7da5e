//! The names under which PEFT's files keep tensors.
//!
//! | tensor | key, after `base_model.model.` |
//! |---|---|
//! | `A`, `B` of a linear layer or convolution | `<module>.lora_A.weight`, `<module>.lora_B.weight` |
//! | the bias of `B` (`lora_bias`) | `<module>.lora_B.bias` |
//! | `A`, `B` of an embedding | `<module>.lora_embedding_A`, `<module>.lora_embedding_B` |
//! | the magnitude of `DoRA` | `<module>.lora_magnitude_vector` |
//! | rows of an embedding (`trainable_token_indices`) | `<module>.token_adapter.trainable_tokens_delta` |
//! | a parameter of `modules_to_save`, a bias of `bias="all"` | `<module>.<parameter>` |
//! | a parameter of the layer under an adapter | `<module>.base_layer.<parameter>` |
//! | `A`, `B` of the output projection of an `nn.MultiheadAttention` | `<module>.base_layer.out_proj.lora_A.weight`, .. |
//!
//! PEFT adapts both projections of an attention at once: the keys of a linear layer under the attention's own name are
//! those of its `in_proj_weight`, and its output projection is the module `<module>.out_proj` here.
//!
//! The name of the adapter is not part of a key. Keys without `base_model.model.`, which PEFT writes for models that it
//! has not wrapped, are read as well; written is the long form.

use crate::error::{Error, Result, Subject};

/// What every key begins with.
pub const PREFIX: &str = "base_model.model.";

const BASE_LAYER: &str = "base_layer";

/// The end of the path under which PEFT has the output projection of an adapted attention.
const NESTED: &str = ".base_layer.out_proj";

/// The end of the path that it has in the base model.
const OUT_PROJ: &str = ".out_proj";
const TOKENS: &str = ".token_adapter.trainable_tokens_delta";

/// A tensor of one module's adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `lora_A.weight`.
    A,
    /// `lora_B.weight`.
    B,
    /// `lora_B.bias`.
    BBias,
    /// `lora_embedding_A`.
    EmbeddingA,
    /// `lora_embedding_B`.
    EmbeddingB,
    /// `lora_magnitude_vector`.
    Magnitude,
}

impl Part {
    const ALL: [Self; 6] = [Self::A, Self::B, Self::BBias, Self::EmbeddingA, Self::EmbeddingB, Self::Magnitude];

    /// The end of the key.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::A => "lora_A.weight",
            Self::B => "lora_B.weight",
            Self::BBias => "lora_B.bias",
            Self::EmbeddingA => "lora_embedding_A",
            Self::EmbeddingB => "lora_embedding_B",
            Self::Magnitude => "lora_magnitude_vector",
        }
    }
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A tensor of the adapter of `module`, a path in the base model.
    Factor {
        /// The path of the adapted module.
        module: String,
        /// Which of its tensors.
        part: Part,
    },
    /// New values for some rows of the weight of `module`.
    Tokens {
        /// The path of the module in the base model.
        module: String,
    },
    /// A new value for a parameter of the base model.
    Saved {
        /// The path of the parameter in the base model.
        parameter: String,
        /// Whether the key says that its module has an adapter.
        wrapped: bool,
    },
}

/// The key of a tensor of the output projection of the attention `module`.
#[must_use]
pub fn nested(module: &str, part: Part) -> String {
    factor(&format!("{module}{NESTED}"), part)
}

/// The attention that `path` would be the output projection of.
#[must_use]
pub fn attention_of(path: &str) -> Option<&str> {
    path.strip_suffix(OUT_PROJ).filter(|attention| !attention.is_empty())
}

/// Reads a key.
///
/// ```
/// use lowrank::adapter::keys::{Key, Part, parse};
///
/// let key = parse("base_model.model.encoder.conv1.lora_A.weight")?;
/// assert_eq!(key, Key::Factor { module: "encoder.conv1".into(), part: Part::A });
/// # Ok::<(), lowrank::Error>(())
/// ```
///
/// # Errors
/// When the key belongs to something that is not supported (`target_parameters`), or still has the adapter's name in it.
pub fn parse(key: &str) -> Result<Key> {
    let place = |error: Error| error.at(format_args!("tensor `{key}`"));
    let path = key.strip_prefix(PREFIX).unwrap_or(key);
    for part in Part::ALL {
        if let Some(module) = path.strip_suffix(part.suffix()) {
            let module = module.strip_suffix('.').filter(|module| !module.is_empty());
            let Some(module) = module else { continue };
            if let Some(attention) = module.strip_suffix(NESTED).filter(|_| matches!(part, Part::A | Part::B)) {
                return Ok(Key::Factor { module: format!("{attention}{OUT_PROJ}"), part });
            }
            if module.split('.').any(|segment| segment == BASE_LAYER) {
                return Err(place(Error::new(
                    Subject::Adapter,
                    "an adapter within an adapted module is not supported: `target_parameters` makes them",
                ))
                .with_hint("merge it with PEFT's `merge_and_unload`"));
            }
            return Ok(Key::Factor { module: module.to_owned(), part });
        }
    }
    if let Some(module) = path.strip_suffix(TOKENS).filter(|module| !module.is_empty()) {
        return Ok(Key::Tokens { module: module.to_owned() });
    }
    if let Some(error) = unsupported(path) {
        return Err(place(error));
    }
    match path.rsplit_once('.') {
        Some((module, name)) if module.ends_with(".base_layer") => {
            let module = module.strip_suffix(".base_layer").unwrap_or(module);
            Ok(Key::Saved { parameter: format!("{module}.{name}"), wrapped: true })
        }
        _ => Ok(Key::Saved { parameter: path.to_owned(), wrapped: false }),
    }
}

/// Keys of PEFT that cannot be read as any tensor of a plain adapter.
fn unsupported(path: &str) -> Option<Error> {
    const SAVE: &str = "save the adapter with PEFT's `save_pretrained`, which leaves the name out";
    let plain = |problem: &str, hint: &str| Some(Error::new(Subject::Adapter, problem.to_owned()).with_hint(hint));
    if path.contains(".lora_magnitude_vector.") {
        return plain("the magnitude of DoRA under its name in memory", SAVE);
    }
    if path.contains(TOKENS) {
        return plain("the adapter's name is still in the key", SAVE);
    }
    if path.contains(".token_adapter.") {
        return plain(
            "factors and trained rows (`trainable_token_indices`) on one embedding are not supported",
            "merge it with PEFT's `merge_and_unload`",
        );
    }
    let middle = [".lora_A.", ".lora_B.", ".lora_embedding_A.", ".lora_embedding_B.", ".modules_to_save."];
    if middle.iter().any(|part| path.contains(part)) {
        return plain("the adapter's name is still in the key", SAVE);
    }
    None
}

/// Whether a key is one of LyCORIS's or kohya's for a plain adapter, which can be converted.
#[must_use]
pub(super) fn is_locon(key: &str) -> bool {
    [".lora_down.weight", ".lora_up.weight", ".lora_mid.weight"].iter().any(|end| key.ends_with(end))
}

/// Which other tool's adapter a key that PEFT has not looks like.
#[must_use]
pub fn other_format(key: &str) -> Option<&'static str> {
    const MARKS: [(&str, &str); 11] = [
        ("lora_down", "kohya's sd-scripts"),
        ("lora_up", "kohya's sd-scripts"),
        ("lora.down", "diffusers"),
        ("lora.up", "diffusers"),
        ("hada_w", "LyCORIS (LoHa)"),
        ("lokr_w", "LyCORIS (LoKr)"),
        ("lora_mid", "LyCORIS"),
        ("lora_E", "AdaLoRA"),
        ("ranknum", "AdaLoRA"),
        ("vera_lambda", "VeRA"),
        ("ia3_l", "IA3"),
    ];
    MARKS.iter().find(|(mark, _)| key.contains(mark)).map(|(_, tool)| *tool)
}

/// The key of a tensor of the adapter of `module`.
#[must_use]
pub fn factor(module: &str, part: Part) -> String {
    format!("{PREFIX}{module}.{}", part.suffix())
}

/// The key of the trained rows of `module`.
#[must_use]
pub fn tokens(module: &str) -> String {
    format!("{PREFIX}{module}{TOKENS}")
}

/// The key of a new value for `parameter`, whose module is `adapted` or not.
#[must_use]
pub fn saved(parameter: &str, adapted: bool) -> String {
    match parameter.rsplit_once('.') {
        Some((module, name)) if adapted => format!("{PREFIX}{module}.{BASE_LAYER}.{name}"),
        _ => format!("{PREFIX}{parameter}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_what_is_written() {
        for part in Part::ALL {
            let key = factor("model.encoder.conv1", part);
            assert_eq!(parse(&key).unwrap(), Key::Factor { module: "model.encoder.conv1".into(), part });
            let bare = key.strip_prefix(PREFIX).unwrap();
            assert_eq!(parse(bare).unwrap(), parse(&key).unwrap());
        }
        let key = tokens("model.embed_tokens");
        assert_eq!(parse(&key).unwrap(), Key::Tokens { module: "model.embed_tokens".into() });
        for (parameter, adapted) in [("head.0.weight", false), ("conv1.bias", true), ("emb.weight", true), ("b", false)]
        {
            let expected = Key::Saved { parameter: parameter.into(), wrapped: adapted };
            assert_eq!(parse(&saved(parameter, adapted)).unwrap(), expected);
        }
    }

    #[test]
    fn the_output_projection_of_an_attention_is_a_module() {
        let key = nested("layers.0.attn", Part::B);
        assert_eq!(key, "base_model.model.layers.0.attn.base_layer.out_proj.lora_B.weight");
        assert_eq!(parse(&key).unwrap(), Key::Factor { module: "layers.0.attn.out_proj".into(), part: Part::B });
        assert_eq!(attention_of("layers.0.attn.out_proj"), Some("layers.0.attn"));
        assert_eq!([attention_of("out_proj"), attention_of("a.my_out_proj")], [None, None]);
    }

    #[test]
    fn only_the_end_of_a_key_counts() {
        let key = parse("base_model.model.lora_A_like.lora_B_tower.q.lora_B.weight").unwrap();
        assert_eq!(key, Key::Factor { module: "lora_A_like.lora_B_tower.q".into(), part: Part::B });
        let key = parse("xlora_A.weight").unwrap();
        assert_eq!(key, Key::Saved { parameter: "xlora_A.weight".into(), wrapped: false });
        assert!(matches!(parse("my_base_layer.bias").unwrap(), Key::Saved { wrapped: false, .. }));
    }

    #[test]
    fn what_is_not_supported_is_said_by_name() {
        for (key, what) in [
            ("base_model.model.q.lora_magnitude_vector.weight", "DoRA"),
            ("base_model.model.q.lora_magnitude_vector.default.weight", "DoRA"),
            ("base_model.model.emb.token_adapter.base_layer.weight", "trainable_token_indices"),
            ("base_model.model.emb.token_adapter.trainable_tokens_delta.default", "name is still in the key"),
            ("base_model.model.mlp.base_layer.lora_A.weight", "target_parameters"),
            ("base_model.model.q.lora_A.default.weight", "name is still in the key"),
            ("base_model.model.emb.lora_embedding_A.default", "name is still in the key"),
            ("base_model.model.head.modules_to_save.default.weight", "name is still in the key"),
        ] {
            let error = parse(key).unwrap_err();
            assert!(error.to_string().contains(what) && error.to_string().contains(key), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn other_tools_are_recognised() {
        assert_eq!(other_format("lora_unet_down_blocks_0.lora_down.weight"), Some("kohya's sd-scripts"));
        assert_eq!(other_format("unet.down.to_q.lora.up.weight"), Some("diffusers"));
        assert_eq!(other_format("encoder.conv1.weight"), None);
    }
}

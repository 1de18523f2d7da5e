use serde_json::json;

use super::*;
use crate::survey::Survey;

fn keys(changes: &serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    let mut keys = json!({"architectures": ["Wav2Vec2ForCTC"], "hidden_size": 32, "num_attention_heads": 4,
        "num_hidden_layers": 1, "intermediate_size": 8, "conv_dim": [4, 4], "conv_stride": [5, 2], "conv_kernel": [10, 3]});
    for (key, value) in changes.as_object().unwrap() {
        keys[key] = value.clone();
    }
    keys.as_object().unwrap().clone()
}

fn config(changes: &serde_json::Value) -> lowrank::Result<SpeechConfig> {
    SpeechConfig::from_map("wav2vec2", keys(changes))
}

#[test]
fn wrong_keys_are_refused_by_name_and_others_kept() {
    let message = |changes| config(&changes).unwrap_err().to_string();
    assert_eq!(message(json!({"hiden_size": 16})), "hiden_size: unknown key");
    assert_eq!(config(&json!({"hiden_size": 16})).unwrap_err().hint(), Some("did you mean `hidden_size`?"));
    assert_eq!(message(json!({"add_adapter": true})), "add_adapter: not supported: found true, expected false");
    assert_eq!(
        message(json!({"num_attention_heads": 5})),
        "num_attention_heads: does not divide hidden_size: found 5, expected a divisor of 32"
    );
    assert_eq!(
        message(json!({"conv_kernel": [10]})),
        "conv_kernel: a value for each convolution is needed: found 1, expected 2, as in conv_dim"
    );
    assert!(message(json!({"feat_extract_norm": "batch"})).contains("unknown variant `batch`"));
    assert!(message(json!({"architectures": ["Wav2Vec2ForXVector"]})).starts_with("architectures: no head"));
    let several = config(&json!({"conv_stride": [5, 0], "hidden_dropout": 1.0})).unwrap_err();
    assert_eq!(several.parts().len(), 2, "{several}");
    let kept = config(&json!({"layerdrop": 0.1, "num_negatives": 100, "transformers_version": "5.23.0"})).unwrap();
    assert_eq!(kept.kept["num_negatives"], 100);
}

#[test]
fn frames_are_counted_as_the_convolutions_make_them() {
    // wav2vec 2.0's own: 400 samples for the first frame, 320 for each after it.
    let grid = SpeechConfig::default().frame_grid();
    assert_eq!(
        [grid.frames(399), grid.frames(400), grid.frames(719), grid.frames(720), grid.frames(16_000)],
        [0, 1, 1, 2, 49]
    );
    assert_eq!((grid.least(), grid.hop()), (400, 320));
    let small = config(&json!({"conv_kernel": [10, 3], "conv_stride": [5, 2]})).unwrap();
    let grid = small.frame_grid();
    let network = Wav2Vec2::new(&small, 5, &Device::flex());
    let Wav2Vec2::Ctc(network) = network else { panic!("{network:?}") };
    for samples in [grid.least(), 33, 34, 35, 60] {
        let frames = network.forward(Tensor::zeros([1, 1, samples], &Device::flex())).dims()[1];
        assert_eq!(frames, grid.frames(samples), "{samples}");
    }
}

#[test]
fn heads_are_no_part_of_a_path() {
    let changes = json!({"architectures": ["Wav2Vec2ForSequenceClassification"], "use_weighted_layer_sum": true});
    let network = Wav2Vec2::new(&config(&changes).unwrap(), 3, &Device::flex());
    let survey = Survey::of(&network).unwrap();
    let keys: Vec<String> = survey.params().map(|(site, param)| site.key(param)).collect();
    for key in [
        "wav2vec2.masked_spec_embed",
        "wav2vec2.feature_extractor.conv_layers.0.layer_norm.weight",
        "layer_weights",
        "classifier.bias",
    ] {
        assert!(keys.iter().any(|found| found == key), "{key} is not in {keys:?}");
    }
}

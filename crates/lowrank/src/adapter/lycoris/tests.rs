use proptest::prelude::*;

use super::*;
use crate::random::Random;

fn draw(name: &str, shape: &[usize]) -> Tensor {
    let mut random = Random::new(3, name, 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal()).collect();
    Tensor::from_values(FloatType::F32, shape.to_vec(), &values).unwrap()
}

fn scalar(value: f32) -> Tensor {
    Tensor::from_values(FloatType::F32, vec![], &[value]).unwrap()
}

fn named(keys: &[(&str, Tensor)], prefix: Option<&str>) -> Result<Named> {
    Named::from_tensors(keys.iter().map(|(key, tensor)| ((*key).to_owned(), tensor.clone())).collect(), prefix)
}

/// Every message, one a line, with its hint.
fn messages(error: Error) -> String {
    let lines = error.into_parts();
    let lines = lines.iter().map(|part| format!("{part}\n  hint: {}\n", part.hint().unwrap_or("none")));
    lines.collect()
}

#[test]
fn modules_are_sorted_by_name_and_prefix() {
    let pair = |name: &str| {
        [
            (format!("{name}.lora_down.weight"), draw("a", &[2, 3])),
            (format!("{name}.lora_up.weight"), draw("b", &[4, 2])),
        ]
    };
    let tensors = || {
        let pairs = ["lora_unet_mid_block", "lora_te_text_model", "lora_te1_text_model"].map(pair);
        pairs.into_iter().flatten().collect::<BTreeMap<_, _>>()
    };
    let one = Named::from_tensors(tensors(), Some("lora_te")).unwrap();
    assert_eq!(one.modules.keys().collect::<Vec<_>>(), ["text_model"]);
    assert_eq!(one.left_out, ["lora_te1_text_model", "lora_unet_mid_block"]);
    let several = Named::from_tensors(tensors(), None).unwrap_err();
    assert_eq!(several.problem(), "the adapters of several models in one file");
    let only: BTreeMap<_, _> = tensors().into_iter().filter(|(name, _)| name.starts_with("lora_unet")).collect();
    assert_eq!(Named::from_tensors(only, None).unwrap().prefix, "lora_unet");
    assert!(Named::from_tensors(tensors(), Some("lora")).unwrap().modules.contains_key("te_text_model"));
}

#[test]
fn what_is_not_locon_is_refused_by_name() {
    let any = draw("x", &[2, 2]);
    let keys = [
        "lycoris_a.hada_w1_a",
        "lycoris_a.hada_w1_b",
        "lycoris_a.alpha",
        "lycoris_b.lokr_w1",
        "lycoris_c.oft_blocks",
        "lycoris_d.diff",
        "lycoris_e.w_norm",
        "lycoris_f.a1.weight",
        "lycoris_g.on_input",
        "lycoris_h.q_layer.weight",
        "base_model.model.fc.lora_A.weight",
        "unet.to_q.lora.down.weight",
        "lycoris_i.lora_up.weight",
        "lycoris_j.lora_down.weight",
        "lycoris_k.dora_scale",
    ];
    let error = named(&keys.map(|key| (key, any.clone())), None).unwrap_err();
    insta::assert_snapshot!(messages(error));
    let strange = named(&[("unet_a.lora_up.weight", any.clone()), ("unet_a.lora_down.weight", any)], None);
    insta::assert_snapshot!("another_prefix", messages(strange.unwrap_err()));
}

#[test]
fn malformed_modules_are_refused() {
    let pair = |down: Tensor, up: Tensor, alpha: Option<&Tensor>| Locon::new(down, up, None, alpha, None);
    let (down, up) = (draw("down", &[2, 3]), draw("up", &[4, 2]));
    let integers = Tensor::new(Dtype::I64, vec![2, 3], vec![0; 48]).unwrap();
    let empty = Tensor::new(Dtype::F32, vec![0, 3], vec![]).unwrap();
    for (made, problem) in [
        (pair(integers, up.clone(), None), "`lora_down.weight` has the wrong type"),
        (pair(empty, up.clone(), None), "`lora_down.weight` is empty"),
        (pair(down.clone(), up.clone(), Some(&draw("alpha", &[2]))), "`alpha` is not a number"),
        (pair(down.clone(), up.clone(), Some(&scalar(f32::NAN))), "`alpha` is not a number"),
    ] {
        assert_eq!(made.unwrap_err().problem(), problem);
    }
    let locon = pair(down, up, None).unwrap();
    for (kind, shape, problem) in [
        (LayerKind::Linear, &[5, 3][..], "`lora_up.weight` does not fit a Linear"),
        (LayerKind::Linear, &[4, 4], "`lora_down.weight` does not fit a Linear"),
        (LayerKind::Conv1d, &[4, 3, 2], "`lora_down.weight` does not fit a Conv1d"),
        (LayerKind::Embedding, &[3, 4], "LyCORIS has no adapter for Embedding layers"),
    ] {
        let layer = Layer::new(kind, shape, 1).unwrap();
        assert_eq!(locon.factors(&layer).unwrap_err().problem(), problem);
    }
    // A kernel of 1 is written with and without its axes.
    assert!(locon.factors(&Layer::new(LayerKind::Conv2d, &[4, 3, 1, 1], 1).unwrap()).is_ok());
}

#[test]
fn a_magnitude_for_each_input_is_refused_by_name() {
    let (down, up) = (draw("down", &[2, 3]), draw("up", &[4, 2]));
    let locon = Locon::new(down, up, None, None, Some(draw("m", &[1, 3]))).unwrap();
    let error = locon.factors(&Layer::new(LayerKind::Linear, &[4, 3], 1).unwrap()).unwrap_err();
    assert!(error.hint().unwrap().contains("wd_on_output=False"), "{error}");
}

#[test]
fn without_alpha_or_with_zero_the_scale_is_one() {
    let layer = Layer::new(LayerKind::Linear, &[4, 3], 1).unwrap();
    for (alpha, scale) in [(None, 1.0_f32), (Some(0.0), 1.0), (Some(3.0), 1.5), (Some(-1.0), -0.5)] {
        let alpha = alpha.map(scalar);
        let locon = Locon::new(draw("down", &[2, 3]), draw("up", &[4, 2]), None, alpha.as_ref(), None).unwrap();
        assert_eq!(locon.factors(&layer).unwrap().scale().to_bits(), scale.to_bits());
    }
}

fn number(rank: usize) -> f64 {
    f64::from(u32::try_from(rank).unwrap())
}

fn shapes() -> impl Strategy<Value = (Vec<usize>, usize, usize)> {
    let kernel = prop_oneof![
        Just(vec![]),
        prop::collection::vec(1_usize..4, 1),
        prop::collection::vec(1_usize..4, 2),
        prop::collection::vec(1_usize..3, 3)
    ];
    (1_usize..5, 1_usize..5, kernel, 1_usize..4, 1_usize..4).prop_map(|(out, inputs, kernel, groups, r)| {
        let groups = if kernel.is_empty() { 1 } else { groups };
        ([&[out * groups, inputs], &kernel[..]].concat(), groups, r)
    })
}

fn layer(shape: &[usize], groups: usize) -> Layer {
    let kinds = [LayerKind::Linear, LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d];
    Layer::new(kinds[shape.len() - 2], shape, groups).unwrap()
}

fn assert_same_delta(found: &Factors, expected: &[f64]) -> std::result::Result<(), TestCaseError> {
    let largest = expected.iter().fold(1e-3_f64, |most, value| most.max(value.abs()));
    for (found, expected) in found.delta().unwrap().iter().zip(expected) {
        prop_assert!((f64::from(*found) - expected).abs() <= 1e-5 * largest, "{found} {expected}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// `delta[o, i, t] = alpha / r * sum_pq up[o, p] mid[p, q, t] down[q, i]`.
    #[test]
    fn a_folded_tucker_decomposition_is_its_definition((shape, groups, r) in shapes()) {
        let layer = layer(&shape, groups);
        let (outputs, inputs, taps) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
        let ones = vec![1; shape.len() - 2];
        let down = draw("down", &[&[r, inputs], &ones[..]].concat());
        let up = draw("up", &[&[outputs, r], &ones[..]].concat());
        let mid = draw("mid", &[&[r, r], &shape[2..]].concat());
        let [d, u, m] = [&down, &up, &mid].map(|tensor| tensor.values().unwrap());
        let locon = Locon::new(down, up, Some(mid), Some(&scalar(3.0)), None).unwrap();
        let mut expected = Vec::new();
        for (o, i, t) in (0..outputs).flat_map(|o| (0..inputs).flat_map(move |i| (0..taps).map(move |t| (o, i, t)))) {
            let terms = (0..r * r).map(|pq| (pq / r, pq % r)).map(|(p, q)| {
                f64::from(u[o * r + p]) * f64::from(m[(p * r + q) * taps + t]) * f64::from(d[q * inputs + i])
            });
            expected.push(3.0 / number(r) * terms.sum::<f64>());
        }
        assert_same_delta(&locon.factors(&layer).unwrap(), &expected)?;
    }

    /// From factors of every form and back, the delta and the magnitude stay.
    #[test]
    fn factors_come_back((shape, groups, r) in shapes(), mode in 0_usize..3, dora: bool) {
        let layer = layer(&shape, groups);
        let mode = [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared][mode];
        let rank = if mode == GroupMode::Shared { r } else { r * groups };
        let values = |name: &str, shape: Vec<usize>| draw(name, &shape).values().unwrap();
        let (a, b) = (values("A", layer.a_shape(rank, mode)), values("B", layer.b_shape(rank, mode)));
        let factors = Factors::new(layer.clone(), mode, rank, 1.5, a, b, None).unwrap().project().0;
        let magnitude = Magnitude { values: values("m", vec![layer.out_features()]), norm: DoraNorm::Exact };
        let factors = if dora { factors.with_magnitude(magnitude).unwrap() } else { factors };
        let locon = Locon::from_factors(&factors, 1.5 * number(rank), FloatType::F32).unwrap();
        let tensors = locon.into_tensors("lycoris_a_b").unwrap();
        let again = Named::from_tensors(tensors, None).unwrap().modules["a_b"].factors(&layer).unwrap();
        prop_assert_eq!(again.rank(), rank);
        prop_assert_eq!(again.magnitude(), factors.magnitude());
        let delta: Vec<f64> = factors.delta().unwrap().into_iter().map(f64::from).collect();
        assert_same_delta(&again, &delta)?;
    }
}

#[test]
fn what_lycoris_has_no_place_for_is_refused_by_name() {
    let new = |kind, shape: &[usize], groups, bias: Option<Vec<f32>>| {
        let layer = Layer::new(kind, shape, groups).unwrap();
        let rank = 2 * groups;
        let (a, b) = (layer.a_shape(rank, GroupMode::PerGroup), layer.b_shape(rank, GroupMode::PerGroup));
        let [a, b] = [a, b].map(|shape| vec![1.0; shape.iter().product()]);
        Factors::new(layer, GroupMode::PerGroup, rank, 1.0, a, b, bias).unwrap()
    };
    let grouped = new(LayerKind::Conv1d, &[4, 1, 3], 2, None);
    let peft = grouped.clone().with_magnitude(Magnitude { values: vec![1.0; 4], norm: DoraNorm::Peft }).unwrap();
    let dense = Factors::new(grouped.layer().clone(), GroupMode::Dense, 2, 1.0, vec![1.0; 12], vec![1.0; 4], None);
    let cases = [
        (new(LayerKind::Embedding, &[5, 3], 1, None), 1.0),
        (new(LayerKind::Conv1D, &[5, 3], 1, None), 1.0),
        (new(LayerKind::Linear, &[5, 3], 1, Some(vec![0.0; 5])), 1.0),
        (new(LayerKind::Linear, &[5, 3], 1, None), 0.0),
        (peft, 1.0),
        (dense.unwrap(), 1.0),
    ];
    let refused = cases.map(|(factors, alpha)| Locon::from_factors(&factors, alpha, FloatType::F32).unwrap_err());
    insta::assert_snapshot!(refused.map(messages).concat());
}

use super::*;
use proptest::prelude::*;

const START: [f32; 8] = [0.5, -1.25, 2.0, 0.0, -0.75, 1.5, -0.1, 0.3];
const FACTORS: [f64; 5] = [1.0, 0.8, 0.6, 0.4, 0.2];

fn slots() -> Vec<ParamSlot> {
    let slot = |name: &str, group| ParamSlot { name: name.to_owned(), len: 2, group };
    vec![
        slot("conv.lora_A.weight", Group::A),
        slot("embed.lora_embedding_A", Group::Embedding),
        slot("conv.lora_B.weight", Group::B),
        slot("conv.lora_B.bias", Group::BNoDecay),
    ]
}

/// `sin(1.7 i + 0.9 step)`, times 0.1, 1 and 10 in turn.
fn gradients(step: u32) -> Vec<f32> {
    (0..8)
        .map(|i| (1.7 * f64::from(i) + 0.9 * f64::from(step)).sin() * 10f64.powi(i % 3 - 1))
        .map(|g| g as f32)
        .collect()
}

fn run(config: OptimizerConfig, lr: f64, plus: Option<LoraPlus>, slots: Vec<ParamSlot>) -> (Vec<f32>, OptimizerState) {
    let mut optimizer = Optimizer::new(config, lr, plus, slots).unwrap();
    let mut params = START.to_vec();
    for (step, factor) in (0..).zip(FACTORS) {
        optimizer.step(lr * factor, &mut params, &gradients(step)).unwrap();
    }
    (params, optimizer.state().clone())
}

fn same_group() -> Vec<ParamSlot> {
    vec![ParamSlot { name: "all".to_owned(), len: 8, group: Group::A }]
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let tolerance = 4e-7 * expected.abs().max(0.05);
        assert!((f64::from(*found) - expected).abs() <= tolerance, "{found} is not {expected}");
    }
}

// The numbers below are what torch 2.15 gives for START, gradients() and FACTORS.

#[test]
fn adamw_is_pytorchs() {
    let (params, state) = run(OptimizerConfig::default(), 0.01, None, same_group());
    let expected =
        [0.484314173, -1.26933038, 2.02639651, 0.0165253412, -0.77692014, 1.48702788, -0.0735035613, 0.307256132];
    assert_close(&params, &expected);
    let m =
        [0.0130198337, -0.0946412012, -1.05810344, 0.0121907359, 0.0743961707, -1.41078424, -0.00380418077, 0.15088138];
    assert_close(&state.m, &m);
    let v = [
        1.93654105e-05,
        0.00296452991,
        0.214559838,
        2.70109231e-05,
        0.0024459227,
        0.238382399,
        2.7590675e-05,
        0.0020955964,
    ];
    assert_close(&state.v, &v);
    assert_eq!(state.step, 5);
}

#[test]
fn adamw_with_the_rates_of_lora_plus_is_pytorchs_with_pefts_groups() {
    let config = OptimizerConfig::AdamW { betas: [0.8, 0.95], eps: 1e-6, weight_decay: 0.1 };
    let plus = LoraPlus { loraplus_lr_ratio: 16.0, loraplus_lr_embedding: 0.005 };
    let (params, _) = run(config, 0.01, Some(plus), slots());
    let expected =
        [0.48256886, -1.26461756, 2.01049352, 0.00754398713, -1.13527989, 1.25868714, 0.313870579, 0.39514941];
    assert_close(&params, &expected);
}

#[test]
fn sgd_is_pytorchs() {
    let sgd = |momentum, nesterov| OptimizerConfig::Sgd { momentum, nesterov, weight_decay: 0.05 };
    let plain =
        [0.479664981, -1.29487216, 3.42158556, 0.0026114732, -0.890684664, 1.60783482, -0.0836568922, 0.244233772];
    assert_close(&run(sgd(0.0, false), 0.1, None, same_group()).0, &plain);
    let momentum =
        [0.457659572, -1.45030248, 5.21366882, 0.0155241294, -1.094046, 0.847784519, -0.0585239828, 0.252284706];
    assert_close(&run(sgd(0.9, false), 0.1, None, same_group()).0, &momentum);
    let nesterov =
        [0.441804349, -1.47218871, 6.29263592, 0.01631549, -1.19763434, 1.04057789, -0.0466869138, 0.20028308];
    let (params, state) = run(sgd(0.9, true), 0.1, None, same_group());
    assert_close(&params, &nesterov);
    let buffer =
        [0.226893798, -1.24854851, -9.70188713, 0.12585105, 0.535722613, -14.0522652, -0.0516383797, 1.57681155];
    assert_close(&state.m, &buffer);
}

#[test]
fn groups_are_those_pefts_loraplus_forms() {
    for (name, dimensions, layer_norm, group) in [
        ("conv.lora_A.weight", 3, false, Group::A),
        ("head.weight", 2, false, Group::A),
        ("conv.lora_magnitude_vector.weight", 3, false, Group::A),
        ("conv.lora_B.weight", 3, false, Group::B),
        ("fc.lora_magnitude_vector.weight", 1, false, Group::B),
        ("bn.weight", 1, false, Group::B),
        ("embed.lora_embedding_A", 2, false, Group::Embedding),
        ("embed.lora_embedding_B", 2, false, Group::Embedding),
        ("conv.lora_B.bias", 1, false, Group::BNoDecay),
        ("conv.bias", 1, false, Group::BNoDecay),
        ("norm.weight", 1, true, Group::BNoDecay),
        ("head.bias", 1, false, Group::BNoDecay),
    ] {
        assert_eq!(Group::of(name, dimensions, layer_norm), group, "{name}");
    }
}

#[test]
fn settings_read_as_pytorch_names_them_and_wrong_ones_are_refused() {
    let read = |text: &str| serde_json::from_str::<OptimizerConfig>(text);
    assert_eq!(read(r#"{"name": "adamw"}"#).unwrap(), OptimizerConfig::default());
    let sgd = OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    assert_eq!(read(r#"{"name": "sgd", "momentum": 0.9}"#).unwrap(), sgd);
    assert!(read(r#"{"name": "sgd", "betas": [0.9, 0.99]}"#).is_err());
    assert!(read(r#"{"name": "lion"}"#).is_err());
    let wrong = OptimizerConfig::AdamW { betas: [1.0, f64::NAN], eps: -1.0, weight_decay: f64::INFINITY };
    assert_eq!(wrong.validate().unwrap_err().parts().len(), 4);
    let nesterov = OptimizerConfig::Sgd { momentum: 0.0, nesterov: true, weight_decay: 0.0 };
    assert!(nesterov.validate().unwrap_err().hint().unwrap().contains("momentum"));
    let plus = LoraPlus { loraplus_lr_ratio: 0.5, loraplus_lr_embedding: 1e-6 };
    let error = Optimizer::new(OptimizerConfig::default(), 0.1, Some(plus), slots()).unwrap_err();
    assert_eq!(error.to_string(), "loraplus_lr_ratio: out of range: found 0.5, expected at least 1");
    assert!(Optimizer::new(OptimizerConfig::default(), 0.0, None, slots()).is_err());
}

#[test]
fn lengths_that_do_not_fit_change_nothing() {
    let mut optimizer = Optimizer::new(OptimizerConfig::default(), 0.1, None, slots()).unwrap();
    let before = optimizer.state().clone();
    assert!(optimizer.step(0.1, &mut [0.0; 7], &[1.0; 8]).is_err());
    assert!(optimizer.step(0.1, &mut [0.0; 8], &[1.0; 9]).is_err());
    assert!(optimizer.restore(OptimizerState { step: 3, m: vec![0.0; 8], v: vec![] }).is_err());
    assert_eq!(optimizer.state(), &before);
}

/// `PyTorch`'s documented algorithm, one value at a time in `f64`.
fn reference(config: OptimizerConfig, lr: f64, start: f64, grads: &[f64]) -> f64 {
    let (mut p, mut m, mut v) = (start, 0.0, 0.0);
    for (t, g) in (1..).zip(grads) {
        match config {
            OptimizerConfig::AdamW { betas: [b1, b2], eps, weight_decay } => {
                p -= lr * weight_decay * p;
                m = b1 * m + (1.0 - b1) * g;
                v = b2 * v + (1.0 - b2) * g * g;
                let (m_hat, v_hat) = (m / (1.0 - b1.powi(t)), v / (1.0 - b2.powi(t)));
                p -= lr * m_hat / (v_hat.sqrt() + eps);
            }
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay } => {
                let g = g + weight_decay * p;
                m = if t == 1 { g } else { momentum * m + g };
                p -= lr * if nesterov { g + momentum * m } else { m };
            }
        }
    }
    p
}

proptest! {
    #[test]
    fn any_settings_follow_the_reference(
        adam in any::<bool>(),
        b1 in 0.0..0.95f64,
        b2 in 0.5..0.999f64,
        nesterov in any::<bool>(),
        weight_decay in 0.0..0.2f64,
        lr in 1e-4..0.1f64,
        start in -2.0..2.0f32,
        grads in prop::collection::vec(-3.0..3.0f32, 1..12),
    ) {
        let config = if adam {
            OptimizerConfig::AdamW { betas: [b1, b2], eps: 1e-8, weight_decay }
        } else {
            OptimizerConfig::Sgd { momentum: b1, nesterov: nesterov && b1 > 0.0, weight_decay }
        };
        let slot = ParamSlot { name: "p".to_owned(), len: 1, group: Group::A };
        let mut optimizer = Optimizer::new(config, lr, None, vec![slot]).unwrap();
        let mut p = [start];
        for g in &grads {
            optimizer.step(lr, &mut p, &[*g]).unwrap();
        }
        let wide: Vec<f64> = grads.iter().map(|g| f64::from(*g)).collect();
        let expected = reference(config, lr, f64::from(start), &wide);
        prop_assert!((f64::from(p[0]) - expected).abs() < 1e-5 * expected.abs().max(1.0), "{} {expected}", p[0]);
    }

    #[test]
    fn a_restored_optimizer_goes_on_bit_by_bit(split in 0..5u32, adam in any::<bool>()) {
        let config = if adam {
            OptimizerConfig::default()
        } else {
            OptimizerConfig::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.01 }
        };
        let whole = run(config, 0.01, None, slots());
        let mut optimizer = Optimizer::new(config, 0.01, None, slots()).unwrap();
        let mut params = START.to_vec();
        for (step, factor) in (0..).zip(FACTORS) {
            if step == split {
                let state = optimizer.state().clone();
                optimizer = Optimizer::new(config, 0.01, None, slots()).unwrap();
                optimizer.restore(state).unwrap();
            }
            optimizer.step(0.01 * factor, &mut params, &gradients(step)).unwrap();
        }
        prop_assert_eq!((params, optimizer.state().clone()), whole);
    }
}

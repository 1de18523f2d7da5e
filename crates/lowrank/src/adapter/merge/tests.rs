use rayon::ThreadPoolBuilder;

use super::*;
use crate::adapter::layer::elements;
use crate::adapter::{GroupMode, Layer, LayerKind};
use crate::random::Random;

const TYPES: [FloatType; 4] = [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::Bf16];

fn linear(outputs: usize, inputs: usize) -> Layer {
    Layer::new(LayerKind::Linear, &[outputs, inputs], 1).unwrap()
}

/// One input, one output, delta `scale * a * b`.
fn scalar(scale: f32, a: f32, b: f32) -> Factors {
    Factors::new(linear(1, 1), GroupMode::Dense, 1, scale, vec![a], vec![b], None).unwrap()
}

fn random(layer: Layer, rank: usize, scale: f32) -> Factors {
    let mut random = Random::new(5, "merge", rank as u64);
    let mode = GroupMode::PerGroup;
    let mut draw = |shape: Vec<usize>| (0..elements(&shape)).map(|_| random.normal()).collect::<Vec<_>>();
    let (a, b) = (draw(layer.a_shape(rank, mode)), draw(layer.b_shape(rank, mode)));
    Factors::new(layer, mode, rank, scale, a, b, None).unwrap()
}

fn message(result: Result<Merged>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn merges_into_every_type_and_back() {
    let layer = Layer::new(LayerKind::Conv1d, &[2, 2, 2], 1).unwrap();
    let a = vec![1.0, 2.0, 3.0, 4.0];
    let factors = Factors::new(layer, GroupMode::Dense, 1, 2.0, a, vec![1.0, -1.0], None).unwrap();
    for dtype in TYPES {
        let base = dtype.encode(&[0.5; 8]);
        let merged = merge(&base[..], dtype, &[&factors]).unwrap();
        assert_eq!(dtype.decode(merged.weight()), [2.5, 4.5, 6.5, 8.5, -1.5, -3.5, -5.5, -7.5], "{dtype:?}");
        let report = *merged.report();
        assert!((report.max_delta - 8.0).abs() < 1e-12 && report.max_error <= report.bound, "{dtype:?} {report:?}");
        assert_eq!(merged.unmerge(), base, "{dtype:?}");
    }
}

#[test]
fn adding_nothing_keeps_every_bit_pattern() {
    for dtype in [FloatType::F16, FloatType::Bf16] {
        let patterns = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let finite: Vec<u8> =
            patterns.chunks(2).filter(|b| dtype.decode(b)[0].is_finite()).flatten().copied().collect();
        let inputs = finite.len() / 2;
        for (scale, b) in [(0.0, 3.0), (2.0, 0.0), (-1.0, 0.0), (2.0, -0.0)] {
            let factors =
                Factors::new(linear(1, inputs), GroupMode::Dense, 1, scale, vec![-1.5; inputs], vec![b], None).unwrap();
            let merged = merge(&finite[..], dtype, &[&factors, &factors]).unwrap();
            assert_eq!(merged.weight(), finite, "{dtype:?} {scale} {b}");
        }
    }
    for dtype in [FloatType::F64, FloatType::F32] {
        let base = dtype.encode(&[-0.0, 0.0, f32::MIN_POSITIVE / 8.0, -1.0, f32::MAX]);
        let factors = Factors::new(linear(1, 5), GroupMode::Dense, 1, 0.0, vec![1.0; 5], vec![1.0], None).unwrap();
        assert_eq!(merge(&base[..], dtype, &[&factors]).unwrap().weight(), base, "{dtype:?}");
    }
}

#[test]
fn alpha_zero_adds_nothing_though_the_product_overflows() {
    let base = FloatType::F32.encode(&[-0.0]);
    assert_eq!(merge(&base[..], FloatType::F32, &[&scalar(0.0, 1e30, 1e30)]).unwrap().weight(), base);
}

#[test]
fn a_double_base_is_merged_in_double() {
    let (base, factors) = (1.0_f64.to_le_bytes(), scalar(1.0, 1e-6, 1e-6));
    let merged = merge(&base[..], FloatType::F64, &[&factors]).unwrap();
    let expected = 1.0 + f64::from(1e-6_f32) * f64::from(1e-6_f32);
    assert_eq!(merged.weight(), expected.to_le_bytes());
}

#[test]
fn half_precision_is_rounded_once() {
    // 1 + 0.7 spacings is the next value; added in f16 by two adapters of 0.35 it would round back to 1 twice.
    let factors = scalar(1.0, 0.35 * 2.0_f32.powi(-10), 1.0);
    let merged = merge(FloatType::F16.encode(&[1.0]), FloatType::F16, &[&factors, &factors]).unwrap();
    assert_eq!(FloatType::F16.decode(merged.weight()), [1.0 + 2.0_f32.powi(-10)]);
}

#[test]
fn a_base_that_is_not_finite_is_named() {
    let factors = random(linear(300, 500), 2, 1.0);
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let mut base = vec![0.0; 150_000];
        base[499] = bad;
        base[149_999] = f32::NAN;
        for dtype in TYPES {
            let message = message(merge(dtype.encode(&base), dtype, &[&factors]));
            let expected =
                format!("the base weight is not finite at [0, 499]: found {shown}, expected a finite number");
            assert_eq!(message, expected, "{dtype:?}");
        }
    }
}

#[test]
fn a_broken_adapter_is_named() {
    let good = scalar(1.0, 1.0, 1.0);
    let base = FloatType::F32.encode(&[1.0]);
    let merge = |factors: &Factors| message(merge(&base[..], FloatType::F32, &[&good, factors]));
    let expected = |what: &str, found: &str| {
        format!("adapter 2: {what} is not finite at [0, 0]: found {found}, expected a finite number")
    };
    assert_eq!(merge(&scalar(1.0, f32::NAN, 1.0)), expected("lora_A", "NaN"));
    assert_eq!(merge(&scalar(0.0, 1.0, f32::INFINITY)), expected("lora_B", "inf"));
    assert_eq!(merge(&scalar(f32::INFINITY, 1.0, 0.0)), "adapter 2: the scale is not finite: found inf");
}

#[test]
fn overflow_is_named_with_the_type_it_overflows() {
    let overflow =
        |dtype: FloatType, base: f32, factors: Factors| message(merge(dtype.encode(&[base]), dtype, &[&factors]));
    assert_eq!(
        overflow(FloatType::F16, 60000.0, scalar(1.0, 100.0, 60.0)),
        "the merged weight overflows F16 at [0, 0]: found 66000, expected at most 6.5504e4 in magnitude"
    );
    assert_eq!(
        overflow(FloatType::F32, 3e38, scalar(1.0, 1.0, 3e38)),
        "the merged weight overflows F32 at [0, 0]: found inf, expected at most 3.4028234663852886e38 in magnitude"
    );
    assert!(overflow(FloatType::Bf16, 0.0, scalar(1.0, 1.0, f32::MAX)).contains("the merged weight overflows BF16"));
    assert!(overflow(FloatType::Bf16, 0.0, scalar(1.0, 1e30, 1e30)).contains("the delta weight overflows"));
    // The same product fits a base in double precision.
    assert!(merge(FloatType::F64.encode(&[0.0]), FloatType::F64, &[&scalar(1.0, 1e30, 1e30)]).is_ok());
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let factors = scalar(1.0, 1.0, 1.0);
    assert_eq!(
        message(merge(vec![0; 6], FloatType::F32, &[&factors])),
        "the base weight has the wrong size: found 6 bytes, expected those of [1, 1] in F32"
    );
    let other = random(linear(2, 1), 1, 1.0);
    assert_eq!(
        message(merge(vec![0; 4], FloatType::F32, &[&factors, &other])),
        "adapter 2: adapters for different layers cannot be merged into one weight: found [2, 1], expected [1, 1]"
    );
}

#[test]
fn no_adapter_changes_nothing() {
    let base = FloatType::F16.encode(&[1.0, -0.0]);
    assert_eq!(merge(&base[..], FloatType::F16, &[]).unwrap().weight(), base);
}

#[test]
fn several_adapters_add_up() {
    let (one, two) = (scalar(1.0, 2.0, 3.0), scalar(0.5, 1.0, 1.0));
    let merged = merge(FloatType::F32.encode(&[1.0]), FloatType::F32, &[&one, &two, &one]).unwrap();
    assert_eq!(FloatType::F32.decode(merged.weight()), [13.5]);
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let layer = Layer::new(LayerKind::Conv1d, &[320, 70, 5], 4).unwrap();
    let factors = random(layer, 8, 0.5);
    let mut draw = Random::new(6, "base", 0);
    let base: Vec<f32> = (0..320 * 70 * 5).map(|_| draw.normal()).collect();
    let merged = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| merge(FloatType::F32.encode(&base), FloatType::F32, &[&factors])).unwrap()
    };
    let (one, three) = (merged(1), merged(3));
    assert_eq!(one.weight(), three.weight());
    assert_eq!(one.report(), three.report());
    assert!(one.report().max_error > 0.0);
}

#[test]
fn a_bias_is_merged_with_its_scale() {
    let with = |scale, bias: Option<Vec<f32>>| {
        Factors::new(linear(2, 1), GroupMode::Dense, 1, scale, vec![1.0], vec![0.0; 2], bias).unwrap()
    };
    let (factors, none) = (with(2.0, Some(vec![1.0, -0.25])), with(2.0, None));
    for dtype in TYPES {
        let base = dtype.encode(&[1.0, 0.5]);
        let merged = merge_bias(Some(&base), dtype, &[&factors, &none]).unwrap().unwrap();
        assert_eq!(dtype.decode(merged.weight()), [3.0, 0.0], "{dtype:?}");
        assert_eq!(merged.unmerge(), base);
    }
    assert!(merge_bias(None, FloatType::F32, &[&none]).unwrap().is_none());
    let error = merge_bias(None, FloatType::F32, &[&factors]).unwrap_err();
    assert_eq!(error.to_string(), "the adapter has a bias (lora_bias), but the layer has none to merge it into");
    let broken = with(1.0, Some(vec![0.0, f32::NAN]));
    let error = merge_bias(Some(&[0; 8]), FloatType::F32, &[&broken]).unwrap_err();
    assert!(error.to_string().starts_with("the bias of lora_B is not finite at [1]"));
    assert!(merge_bias(Some(&[0; 4]), FloatType::F32, &[&factors]).is_err());
}

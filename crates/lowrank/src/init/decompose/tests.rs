use super::*;
use crate::adapter::LayerKind;

const ALL: [Decomposition; 4] =
    [Decomposition::Pissa, Decomposition::PissaNiter(8), Decomposition::Olora, Decomposition::Mica];

fn drawn(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, "weight", 0);
    (0..count).map(|_| random.normal()).collect()
}

fn layers() -> Vec<Layer> {
    [
        (LayerKind::Linear, &[12, 20][..], 1),
        (LayerKind::Conv1D, &[20, 12], 1),
        (LayerKind::Embedding, &[30, 12], 1),
        (LayerKind::Conv1d, &[12, 5, 3], 1),
        (LayerKind::Conv1d, &[12, 4, 3], 2),
        (LayerKind::Conv2d, &[12, 2, 3, 3], 4),
        (LayerKind::Conv3d, &[12, 2, 2, 2, 2], 1),
        (LayerKind::ConvTranspose1d, &[5, 12, 4], 1),
        (LayerKind::ConvTranspose1d, &[8, 6, 4], 2),
    ]
    .into_iter()
    .map(|(kind, shape, groups)| Layer::new(kind, shape, groups).unwrap())
    .collect()
}

fn weight(layer: &Layer) -> Vec<f32> {
    drawn(layer.weight_shape().iter().product(), 1)
}

fn start(layer: &Layer, mode: GroupMode, rank: usize, how: Decomposition) -> Factors {
    decompose(layer, mode, rank, 1.5, &weight(layer), how, &mut Random::new(3, "start", 0)).unwrap()
}

/// The matrices that are decomposed, `(rows, columns)` each, by plain loops over the definition.
fn blocks(layer: &Layer, values: &[f32], blocks: usize) -> (Vec<Vec<f64>>, [usize; 2]) {
    let (out, columns) = (layer.out_features(), values.len() / layer.out_features());
    let at = |o: usize, i: usize| {
        let (taps, outputs) = (layer.kernel().iter().product::<usize>(), out / layer.groups());
        let row = o / outputs * (columns / taps) + i / taps;
        let turned = (row * outputs + o % outputs) * taps + i % taps;
        f64::from(values[if layer.kind().is_transposed() { turned } else { o * columns + i }])
    };
    let rows = out / blocks;
    let block = |j: usize| {
        (0..rows).flat_map(|o| (0..columns).map(move |i| (o, i))).map(|(o, i)| at(j * rows + o, i)).collect()
    };
    ((0..blocks).map(block).collect(), [rows, columns])
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn pissa_is_the_nearest_matrix_of_its_rank() {
    for layer in layers() {
        for (mode, count) in [(GroupMode::Shared, 1), (GroupMode::PerGroup, layer.groups())] {
            let factors = start(&layer, mode, 4, Decomposition::Pissa);
            let (wholes, shape) = blocks(&layer, &weight(&layer), count);
            let (deltas, _) = blocks(&layer, &factors.delta().unwrap(), count);
            for (whole, delta) in wholes.iter().zip(&deltas) {
                let svd = crate::svd::Svd::of(whole, shape).unwrap();
                let residual: Vec<f64> = whole.iter().zip(delta).map(|(w, d)| w - d).collect();
                let lost = norm(residual.iter().copied()) / norm(whole.iter().copied());
                assert!((lost - svd.lost(4 / count)).abs() < 1e-6, "{} {mode}", layer.kind());
                // The residual has the other singular values, and nothing left of the first.
                let rest = crate::svd::Svd::of(&residual, shape).unwrap();
                let expected = svd.singular_values()[4 / count..].iter().chain(std::iter::repeat(&0.0));
                for (found, expected) in rest.singular_values().iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-5 * svd.singular_values()[0], "{} {mode}", layer.kind());
                }
            }
        }
    }
}

#[test]
fn both_factors_of_pissa_are_balanced() {
    let layer = Layer::new(LayerKind::Linear, &[12, 20], 1).unwrap();
    let factors = start(&layer, GroupMode::PerGroup, 4, Decomposition::Pissa);
    let svd = crate::svd::Svd::of(&weight(&layer), [12, 20]).unwrap();
    for p in 0..4 {
        let root = (svd.singular_values()[p] / 1.5).sqrt();
        let a = norm(factors.a()[p * 20..][..20].iter().map(|x| f64::from(*x)));
        let b = norm(factors.b().iter().skip(p).step_by(4).map(|x| f64::from(*x)));
        assert!((a / root - 1.0).abs() < 1e-6 && (b / root - 1.0).abs() < 1e-6);
    }
}

#[test]
fn randomised_pissa_comes_near_the_exact_one_where_values_decay() {
    let layer = Layer::new(LayerKind::Linear, &[30, 40], 1).unwrap();
    // Rank 5 and a little noise.
    let (left, right, noise) = (drawn(150, 5), drawn(200, 6), drawn(1200, 7));
    let at = |o: usize, i: usize| (0..5).map(|p| left[o * 5 + p] * right[p * 40 + i]).sum::<f32>();
    let weight: Vec<f32> = (0..1200).map(|n| at(n / 40, n % 40) + 0.01 * noise[n]).collect();
    let of = |how, seed| {
        let random = &mut Random::new(seed, "start", 0);
        decompose(&layer, GroupMode::PerGroup, 5, 0.5, &weight, how, random).unwrap()
    };
    let exact = of(Decomposition::Pissa, 0).delta().unwrap();
    let near = of(Decomposition::PissaNiter(4), 0);
    let distance = norm(exact.iter().zip(near.delta().unwrap()).map(|(x, y)| f64::from(x - y)));
    assert!(distance < 1e-5 * norm(exact.iter().map(|x| f64::from(*x))), "{distance}");
    assert_eq!(near, of(Decomposition::PissaNiter(4), 0));
    assert_ne!(near, of(Decomposition::PissaNiter(0), 1));
}

#[test]
fn olora_is_the_start_of_a_qr_decomposition() {
    for layer in layers() {
        let factors = start(&layer, GroupMode::Shared, 4, Decomposition::Olora);
        let (wholes, [rows, columns]) = blocks(&layer, &weight(&layer), 1);
        let b = |o: usize, p: usize| f64::from(factors.b()[o * 4 + p]);
        let a = |p: usize, i: usize| f64::from(factors.a()[p * columns + i]);
        for (p, q) in (0..4).flat_map(|p| (0..4).map(move |q| (p, q))) {
            let dot: f64 = (0..rows).map(|o| b(o, p) * b(o, q)).sum();
            assert!((dot - f64::from(u8::from(p == q))).abs() < 1e-6, "{}: B is orthonormal", layer.kind());
            assert!(if q < p { a(p, q).abs() < 1e-5 } else { p != q || a(p, p) > 0.0 }, "A is upper triangular");
        }
        // The first columns of the weight are Q R exactly.
        for (o, i) in (0..rows).flat_map(|o| (0..4).map(move |i| (o, i))) {
            let product: f64 = (0..4).map(|p| b(o, p) * a(p, i)).sum();
            assert!((product - wholes[0][o * columns + i]).abs() < 1e-5, "{}", layer.kind());
        }
    }
}

#[test]
fn mica_starts_at_the_directions_that_the_weight_uses_least() {
    for layer in layers() {
        let factors = start(&layer, GroupMode::Shared, 3, Decomposition::Mica);
        assert!(factors.a().iter().all(|a| *a == 0.0));
        let (wholes, [rows, columns]) = blocks(&layer, &weight(&layer), 1);
        let svd = crate::svd::Svd::of(&wholes[0], [rows, columns]).unwrap();
        let values = svd.singular_values();
        for p in 0..3 {
            // |W^T u| is the singular value of u.
            let b = |o: usize| f64::from(factors.b()[o * 3 + p]);
            let along = norm((0..columns).map(|i| (0..rows).map(|o| b(o) * wholes[0][o * columns + i]).sum()));
            assert!((along - values[values.len() - 3 + p]).abs() < 1e-5, "{}", layer.kind());
        }
    }
}

#[test]
fn dense_factors_stay_inside_their_groups_and_mean_the_same() {
    for layer in layers() {
        for how in ALL {
            let (dense, compact) =
                (start(&layer, GroupMode::Dense, 4, how), start(&layer, GroupMode::PerGroup, 4, how));
            assert_eq!(dense.mode(), GroupMode::Dense);
            assert_eq!(dense.delta().unwrap(), compact.delta().unwrap());
        }
    }
}

#[test]
fn a_negative_scale_is_made_up_for() {
    let layer = Layer::new(LayerKind::Linear, &[12, 20], 1).unwrap();
    let of = |scale| {
        let random = &mut Random::new(3, "start", 0);
        decompose(&layer, GroupMode::PerGroup, 4, scale, &weight(&layer), Decomposition::Pissa, random)
    };
    let (plus, minus) = (of(2.0).unwrap().delta().unwrap(), of(-2.0).unwrap().delta().unwrap());
    assert!(plus.iter().zip(minus).all(|(x, y)| (x - y).abs() < 1e-6));
    assert!(of(0.0).unwrap_err().to_string().contains("the scale is 0"));
}

#[test]
fn what_cannot_be_decomposed_is_refused() {
    let depthwise = Layer::new(LayerKind::Conv1d, &[6, 1, 3], 6).unwrap();
    let of = |layer: &Layer, mode, rank, weight: &[f32]| {
        let random = &mut Random::new(3, "start", 0);
        decompose(layer, mode, rank, 1.0, weight, Decomposition::Olora, random)
    };
    let weight = drawn(18, 1);
    assert!(of(&depthwise, GroupMode::PerGroup, 6, &weight).is_ok());
    let error = of(&depthwise, GroupMode::PerGroup, 12, &weight).unwrap_err();
    assert!(error.to_string().contains("rank 2 for a matrix of 1 by 3 in each of 6 groups"), "{error}");
    assert!(error.hint().unwrap().contains("r = 6"));
    assert!(of(&depthwise, GroupMode::Shared, 4, &weight).unwrap_err().to_string().contains("at most 3"));
    assert!(of(&depthwise, GroupMode::PerGroup, 6, &weight[1..]).unwrap_err().to_string().contains("found 17"));
    let broken = [&weight[1..], &[f32::NAN]].concat();
    assert!(of(&depthwise, GroupMode::PerGroup, 6, &broken).unwrap_err().to_string().contains("NaN"));
}

//! The peers of this process compute the same layer.

use super::candle::Candle;
use super::{Inputs, Problem, lowrank, stock};
use crate::geometry::{Ends, Geometry};

fn check(geometry: &Geometry) {
    let problem = Problem::draw(geometry, 4);
    let inputs = Inputs::new(&problem);
    let ours = lowrank::lora(&problem, &inputs).unwrap().results();
    let candle = Candle::new(&problem).unwrap().results();
    agree(&ours, &candle);
    if geometry.groups == 1 || geometry.stride == 1 {
        agree(&ours, &stock::weight_space(&problem, &inputs).unwrap().results());
    } else {
        assert!(stock::weight_space(&problem, &inputs).is_err());
    }
}

fn agree(left: &[Vec<f32>; 2], right: &[Vec<f32>; 2]) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left.len(), right.len());
        assert!(left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-4));
    }
}

#[test]
fn rust_peers_agree() {
    let plain = Geometry::sweep(6, 3, 20);
    check(&plain);
    check(&Geometry { stride: 2, outputs: 4, batch: 3, bias: false, ..plain.clone() });
    check(&Geometry { dilation: 3, padding: Ends::Each([6, 0]), ..plain.clone() });
    check(&Geometry { groups: 3, outputs: 12, ..plain.clone() });
    check(&Geometry { groups: 6, kernel: 4, padding: Ends::Each([1, 2]), ..plain.clone() });
    check(&Geometry { groups: 2, stride: 3, padding: Ends::Both(0), length: 21, ..plain });
}

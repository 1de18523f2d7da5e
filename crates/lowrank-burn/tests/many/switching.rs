//! Names, scales, and scopes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::Device;
use lowrank::config::LoraConfig;
use lowrank_burn::Adapters;

use crate::net::{LAYERS, Net, adapted, config, distance, ids};

fn two(device: &Device) -> (Net, Adapters) {
    adapted(&[config(&LAYERS), LoraConfig { use_dora: true, ..config(&["conv", "grouped"]) }], device)
}

#[test]
fn a_renamed_adapter_is_the_same_under_another_name() {
    let device = Device::flex();
    let (net, mut adapters) = two(&device);
    adapters.set_active(&["a", "b"]).unwrap();
    adapters.set_scale("a", 0.5).unwrap();
    let (before, original) = (net.forward(ids(2, &device)), net.bits());
    let (config, state) = adapters.state(&net, "a").unwrap();

    let net = adapters.rename(net, "a", "first").unwrap();
    assert_eq!(adapters.names().collect::<Vec<_>>(), ["b", "first"]);
    assert_eq!(adapters.active(), ["first", "b"]);
    assert_eq!(adapters.scale("first").unwrap().to_bits(), 0.5_f32.to_bits());
    assert!(distance(&net.forward(ids(2, &device)), &before) < 1e-7);
    let renamed = adapters.state(&net, "first").unwrap();
    assert_eq!((renamed.0, renamed.1), (config, state));

    let net = adapters.merge(net).unwrap();
    let net = adapters.rename(net, "first", "again").unwrap();
    assert!(distance(&net.forward(ids(2, &device)), &before) < 1e-5);
    let status = adapters.layer_status();
    let conv = status.iter().find(|layer| layer.name == "conv").unwrap();
    assert_eq!(conv.merged_adapters, ["again", "b"]);
    let net = adapters.unmerge_adapters(net, &["again"]).unwrap();
    assert!(
        distance(&net.forward(ids(2, &device)), &before) > 1e-3,
        "the order is another: what is merged comes first"
    );
    let net = adapters.unmerge(net);
    assert_eq!(net.bits(), original);
    assert!(distance(&net.forward(ids(2, &device)), &before) < 1e-6);

    for (from, to, wrong) in [
        ("a", "c", "no adapter `a`"),
        ("again", "b", "an adapter `b` already"),
        ("again", "again", "an adapter `again` already"),
        ("again", "a/b", "not a name"),
        ("again", "__base__", "stands for no adapter"),
    ] {
        let error = adapters.rename(net.clone(), from, to).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
    let net = adapters.delete(net, "again").unwrap();
    assert_eq!(adapters.active(), ["b"]);
    assert!(distance(&net.forward(ids(2, &device)), &before) > 1e-3);
}

#[test]
fn scales_multiply_and_go_back() {
    let device = Device::flex();
    let (net, adapters) = two(&device);
    let run = || net.forward(ids(2, &device));
    adapters.set_active(&["a"]).unwrap();
    let one = run();
    adapters.set_scale("a", 3.0).unwrap();
    let three = run();
    assert!(distance(&three, &one) > 1e-2);
    adapters.set_scale("a", 1.5).unwrap();
    adapters.scale_active(2.0).unwrap();
    assert!(distance(&run(), &three) < 1e-6, "of what it is scaled by already");
    let scales = ["a", "b"].map(|name| adapters.scale(name).unwrap().to_bits());
    assert_eq!(scales, [3.0_f32, 1.0].map(f32::to_bits), "of the active ones alone");
    adapters.unscale_active(Some(2.0)).unwrap();
    assert_eq!(adapters.scale("a").unwrap().to_bits(), 1.5_f32.to_bits());
    adapters.unscale_active(None).unwrap();
    assert!(distance(&run(), &one) < 1e-7);

    assert!(distance(&adapters.rescaled(3.0, run).unwrap(), &three) < 1e-6);
    let nested = adapters.rescaled(6.0, || adapters.rescaled(0.5, run)).unwrap().unwrap();
    assert!(distance(&nested, &three) < 1e-6, "by both");
    let base = adapters.disabled(run);
    assert!(distance(&adapters.rescaled(0.0, run).unwrap(), &base) < 1e-6);
    assert!(distance(&run(), &one) < 1e-7);

    for error in [
        adapters.set_scale("a", f32::NAN).unwrap_err(),
        adapters.scale_active(f32::INFINITY).unwrap_err(),
        adapters.rescaled(f32::NAN, run).unwrap_err(),
    ] {
        assert!(error.to_string().contains("not a factor"), "{error}");
    }
    assert!(adapters.unscale_active(Some(0.0)).unwrap_err().to_string().contains("cannot be scaled back"));
    assert!(adapters.scale("d").unwrap_err().to_string().contains("no adapter `d`"));
}

#[test]
fn scopes_end_with_a_panic_too() {
    let device = Device::flex();
    let (net, adapters) = two(&device);
    adapters.set_active(&["a", "b"]).unwrap();
    let before = net.forward(ids(2, &device));
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let fail = || -> () { panic!("in the middle") };
    let scopes: [&dyn Fn(); 5] = [
        &|| adapters.disabled(fail),
        &|| drop(adapters.rescaled(2.0, fail)),
        &|| drop(adapters.mixed(&["a", "__base__"], fail)),
        &|| drop(adapters.observe("b", || -> lowrank::Result<()> { panic!("in the middle") })),
        &|| adapters.disabled(|| drop(adapters.rescaled(2.0, || drop(adapters.mixed(&["b", "b"], fail))))),
    ];
    let ended: Vec<bool> = scopes.iter().map(|scope| catch_unwind(AssertUnwindSafe(scope)).is_err()).collect();
    std::panic::set_hook(quiet);
    assert_eq!(ended, [true; 5]);
    assert!(distance(&net.forward(ids(2, &device)), &before) < 1e-7);
    assert!(distance(&adapters.disabled(|| net.forward(ids(2, &device))), &before) > 1e-2);
    adapters.set_enabled(false);
    adapters.disabled(|| ());
    assert!(distance(&net.forward(ids(2, &device)), &before) > 1e-2, "off before, off after");
}

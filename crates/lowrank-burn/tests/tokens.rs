//! `trainable_token_indices`: rows of an embedding that train beside the factors, on Burn's layer and on the drop-in one.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::config::{InitLoraWeights, LoraConfig, Patterns, TokenIndices};
use lowrank::files::adapter_dir;
use lowrank::random::Random;
use lowrank_burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use lowrank_burn::train::Trainable;
use lowrank_burn::{Adapters, attach, load, values};

const ROWS: [usize; 3] = [7, 0, 3];

trait Net: Module {
    fn new(device: &Device) -> Self;
    fn weight(&self) -> Tensor<2>;
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3>;
}

/// A net with this embedding, whose weights are always the same.
macro_rules! net {
    ($name:ident, $embedding:ty, $layer:expr) => {
        #[derive(Module, Debug)]
        struct $name {
            emb: $embedding,
            fc: Linear,
        }

        impl Net for $name {
            fn new(device: &Device) -> Self {
                let linear = LinearConfig::new(4, 3).with_bias(false);
                let net = Self { emb: $layer(device), fc: Linear::new(&linear, device) };
                let mut random = Random::new(1, "net", 0);
                let mut own = |n: usize| (0..n).map(|_| random.uniform(-0.5, 0.5)).collect();
                values::write(net.clone(), [(net.emb.weight.id, own(40)), (net.fc.weight.id, own(12))].into())
            }

            fn weight(&self) -> Tensor<2> {
                self.emb.weight.val()
            }

            fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
                self.fc.forward(self.emb.forward(ids))
            }
        }
    };
}

net!(DropIn, Embedding, |device| Embedding::new(&EmbeddingConfig::new(10, 4), device));
net!(Stock, burn::nn::Embedding, |device| EmbeddingConfig::new(10, 4).init(device));

fn config(tokens: TokenIndices) -> LoraConfig {
    LoraConfig {
        r: 2,
        target_modules: Some(Patterns::List(vec!["fc".into()])),
        init_lora_weights: InitLoraWeights::False,
        trainable_token_indices: Some(tokens),
        ..LoraConfig::default()
    }
}

fn by_name() -> TokenIndices {
    TokenIndices::Modules(vec![("emb".into(), ROWS.to_vec())])
}

fn ids(device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(vec![7_i64, 1, 3, 9, 7, 2], [2, 3]), device)
}

/// Gradient steps on all that trains.
fn trained<N: Net>(mut net: N, adapters: &Adapters, device: &Device) -> N {
    let trainable = Trainable::of_adapter(adapters, "default").unwrap();
    for _ in 0..3 {
        let gradients = net.forward(ids(device)).powi_scalar(2).sum().backward();
        let (mut flat, mut step) = (trainable.read(&net), vec![0.0; trainable.len()]);
        trainable.add_gradients(&net, &gradients, 1.0, &mut step);
        flat.iter_mut().zip(&step).for_each(|(value, gradient)| *value -= 0.05 * gradient);
        net = trainable.write(net, &flat);
    }
    net
}

/// The rows of the embedding that differ from the base's.
fn changed<N: Net>(net: &N, base: &N) -> Vec<usize> {
    let [own, base] = [net, base].map(|net| values::of(net.weight()));
    (0..10).filter(|row| own[4 * row..4 * row + 4] != base[4 * row..4 * row + 4]).collect()
}

fn check<N: Net>() {
    let device = Device::flex().autodiff();
    let base = N::new(&device);
    let (net, mut adapters) = attach(base.clone(), &config(by_name()), 0).unwrap();
    assert_eq!(values::of(net.weight()), values::of(base.weight()), "a fresh adapter leaves the rows as they are");
    let counts = adapters.trainable_parameters(&net);
    assert_eq!(counts.trainable, 3 * 4 + 2 * (4 + 3));

    // Token 0 is not in the batch, tokens 1, 2 and 9 do not train.
    let net = trained(net, &adapters, &device);
    assert_eq!(changed(&net, &base), [3, 7]);
    adapters.disabled(|| assert_eq!(changed(&net, &base), [0; 0]));

    let dir = tempfile::tempdir().unwrap();
    adapters.save(&net, "default", dir.path(), None).unwrap();
    let saved = adapter_dir::read(dir.path()).unwrap();
    assert_eq!(saved.state.tokens["emb"].shape(), [3, 4]);
    let (loaded, _) = load(N::new(&device), dir.path()).unwrap();
    let output = |net: &N| values::of(net.forward(ids(&device)));
    assert_eq!(output(&loaded), output(&net));

    let weight = values::of(net.weight());
    let net = adapters.merge(net).unwrap();
    assert_eq!(values::of(net.weight()), weight, "merged to the bit");
    let net = adapters.unmerge(net);
    adapters.disabled(|| assert_eq!(changed(&net, &base), [0; 0]));
    assert_eq!(values::of(net.weight()), weight);
}

#[test]
fn rows_train_are_saved_and_merge_on_the_drop_in_layer() {
    check::<DropIn>();
}

#[test]
fn rows_train_are_saved_and_merge_on_burns_layer() {
    check::<Stock>();
}

#[test]
fn a_list_is_for_the_only_embedding_and_is_saved_by_its_name() {
    let device = Device::flex();
    let (net, adapters) = attach(DropIn::new(&device), &config(TokenIndices::Embedding(ROWS.to_vec())), 0).unwrap();
    let (saved, state) = adapters.state(&net, "default").unwrap();
    assert_eq!(saved.trainable_token_indices, Some(by_name()));
    assert!(state.tokens.contains_key("emb"));
}

#[test]
fn what_cannot_train_is_refused_with_a_reason() {
    let device = Device::flex();
    let rows = |name: &str, rows: &[usize]| TokenIndices::Modules(vec![(name.into(), rows.to_vec())]);
    let both =
        LoraConfig { target_modules: Some(Patterns::List(vec!["fc".into(), "emb".into()])), ..config(by_name()) };
    for (config, reason) in [
        (config(rows("emb", &[10])), "module `emb` has 10 rows, and no row 10"),
        (config(rows("embd", &[1])), "`embd` matches no module"),
        (config(rows("fc", &[1])), "module `fc` is a Linear, and only rows of an Embedding can be trained"),
        (both, "module `emb` has an adapter as well"),
    ] {
        let error = attach(DropIn::new(&device), &config, 0).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

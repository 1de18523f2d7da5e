//! How much memory reading, refusing, merging and unpacking take, counted in the allocator.

#![expect(unsafe_code, reason = "counting allocations takes a global allocator, and that trait is unsafe")]

mod fixture;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use lowrank::adapter::state_dict::{ModuleTensors, StateDict};
use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind};
use lowrank::config::LoraConfig;
use lowrank::files::{Checkpoint, adapter_dir, merge_checkpoint};
use lowrank::float::FloatType;
use lowrank::kernels::{Values, linear};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grew(size: usize) {
    let now = NOW.fetch_add(size, Ordering::SeqCst) + size;
    PEAK.fetch_max(now, Ordering::SeqCst);
}

// SAFETY: every call is the system allocator's own; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `action` had at most beyond what was there before.
fn peak<T>(action: impl FnOnce() -> T) -> (usize, T) {
    let before = NOW.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let result = action();
    (PEAK.load(Ordering::SeqCst) - before, result)
}

const MB: usize = 1 << 20;

/// Width and number of the layers, and the rank: 4 MB a weight, 4 MB of adapter.
const WIDTH: usize = 1024;
const LAYERS: usize = 8;
const RANK: usize = 64;

fn adapter(dir: &Path) -> usize {
    let config = LoraConfig { r: RANK, lora_alpha: 16.0, ..fixture::config() };
    let layer = Layer::new(LayerKind::Linear, &[WIDTH, WIDTH], 1).unwrap();
    let modules = (0..LAYERS).map(|number| {
        let values = |what: &str| {
            fixture::values(&format!("{what}{number}"), 3, RANK * WIDTH).iter().map(|v| v * 0.01).collect()
        };
        let factors =
            Factors::new(layer.clone(), GroupMode::Dense, RANK, 0.25, values("A"), values("B"), None).unwrap();
        (format!("layers.{number}.fc"), ModuleTensors::from_factors(&factors, FloatType::F32).unwrap())
    });
    let state = StateDict { modules: modules.collect(), ..StateDict::default() };
    adapter_dir::write(dir, &config, &state, None).unwrap();
    usize::try_from(fs::metadata(dir.join("adapter_model.safetensors")).unwrap().len()).unwrap()
}

fn base(path: &Path, float: FloatType) -> usize {
    let tensors =
        (0..LAYERS).map(|number| (format!("layers.{number}.fc.weight"), fixture::tensor(&[WIDTH, WIDTH], float, 0.5)));
    fixture::save(path, &tensors.collect());
    WIDTH * WIDTH * float.size()
}

/// One test, one after another: peaks of tests that run side by side would add up.
#[test]
fn memory_is_bounded() {
    reading_an_adapter_takes_its_size();
    for float in [FloatType::F32, FloatType::Bf16] {
        merging_takes_two_tensors_and_the_adapter(float);
    }
    bogus_headers_take_nothing();
    half_precision_is_unpacked_in_strips();
}

fn reading_an_adapter_takes_its_size() {
    let dir = fixture::folder();
    let size = adapter(dir.path());
    let (peak, read) = peak(|| adapter_dir::read(dir.path()).unwrap());
    assert_eq!(read.state.modules.len(), LAYERS);
    assert!(peak <= size + MB, "{peak} bytes for a file of {size}");
}

fn merging_takes_two_tensors_and_the_adapter(float: FloatType) {
    let dir = fixture::folder();
    let (from, with, to) =
        (dir.path().join("base.safetensors"), dir.path().join("adapter"), dir.path().join("out.safetensors"));
    let (adapter, largest) = (adapter(&with), base(&from, float));
    let (peak, summary) = peak(|| merge_checkpoint(&from, &with, &to, false, &mut |_| {}).unwrap());
    assert_eq!(summary.merged.len(), LAYERS);
    let allowed = 2 * largest + adapter + MB;
    assert!(peak <= allowed, "{peak} bytes, allowed {allowed}: largest {largest}, adapter {adapter}");
}

fn bogus_headers_take_nothing() {
    let dir = fixture::folder();
    let path = dir.path().join("bogus.safetensors");
    let length = 100_000_000;
    // A string, brackets, blanks, numbers and metadata without end; and a length that is not there.
    for (begin, fill) in
        [("{\"", "x"), ("{\"a\":", "["), ("{", " "), ("{\"a\":{\"shape\":[", "1,"), ("{\"__metadata__\":{\"", "y")]
    {
        let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
        file.write_all(&(length as u64).to_le_bytes()).unwrap();
        file.write_all(begin.as_bytes()).unwrap();
        let block = fill.repeat(1000);
        let mut left = length - begin.len();
        while left > 0 {
            let part = &block.as_bytes()[..block.len().min(left)];
            file.write_all(part).unwrap();
            left -= part.len();
        }
        file.into_inner().unwrap();
        let (peak, result) = peak(|| Checkpoint::open(&path).map(drop));
        assert!(result.is_err() && peak <= MB, "{begin}{fill}...: {peak} bytes");
    }
    fs::write(&path, [&(length as u64).to_le_bytes()[..], b"{}"].concat()).unwrap();
    let (peak, result) = peak(|| Checkpoint::open(&path).map(drop));
    assert!(result.is_err() && peak <= MB, "{peak} bytes");
}

/// A whole weight in single precision would be 16 MB.
fn half_precision_is_unpacked_in_strips() {
    let (rows, width) = (16, 2 * WIDTH);
    let values = vec![half::bf16::ONE; width * width];
    let weight = linear::Weight { base: Values::Bf16(&values), inputs: width, outputs: width, low_rank: None };
    let x = vec![1.0; rows * width];
    let (peak, [y, dx]) = peak(|| [linear::forward(&x, &weight, None), linear::input_gradient(&x, &weight)]);
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    let sum = width as f32;
    assert!([y, dx].iter().flatten().all(|value| value.to_bits() == sum.to_bits()));
    // A strip of 48 columns for each thread.
    let allowed = 8 * rows * width + rayon::current_num_threads() * 200 * width + MB;
    assert!(peak <= allowed, "{peak} bytes, allowed {allowed}");
}

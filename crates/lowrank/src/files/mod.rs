//! Files: the only place that touches the file system.
//!
//! Reading trusts nothing: sizes are checked before memory is asked for, names never become paths, other formats than
//! safetensors are refused ([`header`], [`checkpoint`], [`limits`]). Writing loses nothing: a name holds the whole old
//! content or the whole new one at any moment ([`atomic`], [`new_dir`], [`storage`]). On these stand the directories
//! PEFT reads and writes ([`adapter_dir`]), making one adapter of several ([`combine_dirs()`]), of two models
//! ([`extract_dir()`]) or of another rank ([`resize_dir()`]), converting ([`convert`]), comparing and checking ([`diff()`], [`check_adapter()`]), and
//! merging into a model's own files ([`merge_checkpoint()`]).

pub mod adapter_dir;
pub mod atomic;
pub mod check_adapter;
pub mod checkpoint;
pub mod combine_dirs;
pub mod convert;
mod copy_model;
pub mod diff;
pub mod extract_dir;
pub mod foreign;
pub mod header;
mod header_json;
pub mod limits;
pub mod lock;
pub mod merge_checkpoint;
mod merge_layout;
mod merge_plan;
pub mod new_dir;
pub mod output_dir;
pub mod read;
pub mod resize_dir;
mod shards;
pub mod storage;
mod weight_norm;
pub mod writer;

pub use adapter_dir::Adapter;
pub use atomic::write;
pub use check_adapter::check_adapter;
pub use checkpoint::Checkpoint;
pub use combine_dirs::combine_dirs;
pub use convert::{convert_to_lycoris, convert_to_peft};
pub use diff::diff;
pub use extract_dir::extract_dir;
pub use header::{Header, TensorInfo};
pub use lock::RunLock;
pub use merge_checkpoint::{MergeOptions, WeightNorm, merge_checkpoint};
pub use read::{create_dir, exists, list, read_bytes, read_to_string};
pub use resize_dir::resize_dir;
pub use storage::{Disk, Storage};

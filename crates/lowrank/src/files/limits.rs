//! How large an input may be, and why.
//!
//! Every length that a file states is checked against one of these, and against the file's own size, before memory is
//! asked for it.

/// Bytes of a safetensors header: the format's own limit.
pub const HEADER_BYTES: u64 = 100_000_000;

/// Tensors in one file. The largest published models have some ninety thousand, over more than a hundred files.
pub const TENSORS: usize = 100_000;

/// Bytes of a tensor's name. A dotted path of twenty long names stays below half of it.
pub const NAME_BYTES: usize = 1024;

/// Dimensions of a tensor. Models have up to five, frameworks stop at eight or sixteen.
pub const DIMENSIONS: usize = 16;

/// Bytes of any one string in a header. Trainers put lists of their data into the metadata; no more than that fits.
pub const HEADER_STRING_BYTES: usize = 256 << 10;

/// Bytes of a header's metadata altogether.
pub const METADATA_BYTES: usize = 1 << 20;

/// Nested brackets in a header, which needs three.
pub const HEADER_DEPTH: usize = 4;

/// Bytes of `adapter_config.json`. PEFT writes about two thousand; a long list of target modules adds some thousands.
pub const CONFIG_BYTES: u64 = 1 << 20;

/// Bytes of `model.safetensors.index.json`: a hundred bytes a tensor, for three times the largest models there are.
pub const INDEX_BYTES: u64 = 32 << 20;

/// Files of one sharded checkpoint. All stay open while it is read, and a process may often open 1,024.
pub const SHARDS: usize = 512;

/// Bytes copied at a time.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Bytes of a weight that are merged at a time: enough for every processor, and no more than a second copy of them.
pub const MERGE_BYTES: usize = 1 << 20;

/// Folders inside folders that are copied along with a model.
pub const FOLDER_DEPTH: usize = 8;

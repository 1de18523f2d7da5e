//! What PEFT's own tests ask of LoRA, asked of ours: the rows of `docs/peft-tests.md` that no other test holds.

mod merging;
mod net;
mod saving;
mod switching;
mod training;

//! Giving the adapter of a directory another rank.

use std::path::Path;

use super::adapter_dir;
use super::combine_dirs::check_output;
use crate::adapter::rank::Cut;
use crate::adapter::resize::{Resized, resize_adapter};
use crate::error::Result;

/// Reads the adapter in `dir`, resizes it as [`resize_adapter`] does, and writes it to `output` when there is one. With
/// `force` an adapter that is there is replaced, which may be `dir`. The second value has what is unusual about the
/// configuration.
///
/// # Errors
/// When `output` exists and may not be replaced; when the adapter cannot be read; as [`resize_adapter`], and as
/// [`adapter_dir::write`].
pub fn resize_dir(dir: &Path, cut: Cut, output: Option<(&Path, bool)>) -> Result<(Resized, Vec<String>)> {
    cut.check()?;
    if let Some((output, force)) = output {
        check_output(output, force)?;
    }
    let adapter = adapter_dir::read(dir)?;
    let resized = resize_adapter(&adapter.config, &adapter.state, cut)?;
    if let Some((output, _)) = output {
        adapter_dir::write(output, &resized.config, &resized.state, None)?;
    }
    Ok((resized, adapter.warnings))
}

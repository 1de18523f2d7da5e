//! Weights in other formats: refused, with the reason and the way out.

use std::path::Path;

use crate::error::{Error, Result, Subject};

/// Extensions of weights that are not read, by what they are.
const PICKLE: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];
const OTHER: [&str; 9] = ["npz", "npy", "h5", "hdf5", "keras", "onnx", "gguf", "msgpack", "ot"];

/// Whether the name is that of weights in a format that is not read.
#[must_use]
pub fn is_foreign(path: &Path) -> bool {
    extension(path).is_some_and(|ext| PICKLE.contains(&ext.as_str()) || OTHER.contains(&ext.as_str()))
}

/// Refuses weights in another format.
///
/// # Errors
/// When the name is that of such a file; the hint converts it.
pub fn refuse_foreign(path: &Path) -> Result<()> {
    let Some(extension) = extension(path).filter(|_| is_foreign(path)) else { return Ok(()) };
    let source = path.display().to_string();
    let output = path.with_extension("safetensors").display().to_string();
    let (reason, hint) = way_out(&extension, &source, &output);
    Err(Error::new(Subject::File, format!("weights in a .{extension} file are not read: {reason}"))
        .at(&source)
        .expected("a .safetensors file")
        .with_hint(hint))
}

fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase)
}

fn way_out(extension: &str, source: &str, output: &str) -> (&'static str, String) {
    match extension {
        "npz" | "npy" => (
            "it may hold pickled objects, and compressed data of any size",
            format!(
                "convert it in Python:\n  import numpy; from safetensors.numpy import save_file\n  \
                 save_file(dict(numpy.load({source:?}, allow_pickle=False)), {output:?})"
            ),
        ),
        "onnx" => (
            "it is a graph, whose weights may lie in further files",
            format!(
                "convert its weights in Python:\n  import onnx; from onnx.numpy_helper import to_array; \
                 from safetensors.numpy import save_file\n  \
                 save_file({{t.name: to_array(t) for t in onnx.load({source:?}).graph.initializer}}, {output:?})"
            ),
        ),
        "h5" | "hdf5" | "keras" | "gguf" | "msgpack" | "ot" => (
            "it belongs to another framework",
            "load it with the framework that wrote it and save it with safetensors' `save_file`".to_owned(),
        ),
        _ => (
            "it is a Python pickle, which runs code when it is loaded",
            format!(
                "convert it in Python, if you trust where it is from:\n  \
                 import torch; from safetensors.torch import save_file\n  \
                 save_file({{k: v.clone().contiguous() for k, v in torch.load({source:?}, map_location=\"cpu\", \
                 weights_only=True).items()}}, {output:?}, metadata={{\"format\": \"pt\"}})"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_foreign_extension_is_refused_with_a_way_out() {
        for extension in PICKLE.iter().chain(&OTHER) {
            let path = format!("some/adapter_model.{}", extension.to_ascii_uppercase());
            let error = refuse_foreign(Path::new(&path)).unwrap_err();
            assert!(error.to_string().contains(".safetensors file"), "{error}");
            assert!(error.hint().unwrap().contains("save_file"), "{extension}");
        }
        for fine in ["a.safetensors", "a.json", "bin", "a.bin.json"] {
            assert!(refuse_foreign(Path::new(fine)).is_ok(), "{fine}");
        }
    }

    #[test]
    fn the_way_out_of_a_pickle_is_two_lines_of_python() {
        let error = refuse_foreign(Path::new("x/adapter_model.bin")).unwrap_err();
        insta::assert_snapshot!(format!("{error}\nhint: {}", error.hint().unwrap()), @r#"
        x/adapter_model.bin: weights in a .bin file are not read: it is a Python pickle, which runs code when it is loaded: expected a .safetensors file
        hint: convert it in Python, if you trust where it is from:
          import torch; from safetensors.torch import save_file
          save_file({k: v.clone().contiguous() for k, v in torch.load("x/adapter_model.bin", map_location="cpu", weights_only=True).items()}, "x/adapter_model.safetensors", metadata={"format": "pt"})
        "#);
    }
}

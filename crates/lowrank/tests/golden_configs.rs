//! The configurations of the golden adapters, which PEFT wrote, are rewritten byte for byte.

use std::path::Path;

use lowrank::config::LoraConfig;

#[test]
fn configurations_of_golden_adapters_are_rewritten_byte_for_byte() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/adapters");
    let mut read = 0;
    let mut folders = vec![golden];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("adapter_config.json") {
                let text = std::fs::read_to_string(&path).unwrap();
                let (config, warnings) = LoraConfig::from_json(&text, &path.to_string_lossy()).unwrap();
                assert_eq!(config.to_json(), text, "{}", path.display());
                assert!(warnings.is_empty(), "{}: {warnings:?}", path.display());
                read += 1;
            }
        }
    }
    assert!(read >= 40, "{read} configurations read");
}

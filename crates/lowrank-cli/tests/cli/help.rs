use insta::assert_snapshot;

use super::runner::lowrank;

#[test]
fn every_help_page() {
    for page in [
        "",
        "train",
        "eval",
        "predict",
        "merge",
        "combine",
        "extract",
        "resize",
        "convert",
        "check",
        "diff",
        "inspect",
        "plan",
        "completions",
    ] {
        let help = lowrank(&format!("{page} --help"));
        assert_eq!((help.code, &*help.stderr), (0, ""));
        let name = if page.is_empty() { "help".to_owned() } else { format!("help_{page}") };
        assert_snapshot!(name, help.stdout);
    }
}

#[test]
fn nothing_at_all_is_the_help_and_wrong_input() {
    let none = lowrank("");
    assert_eq!((none.code, &*none.stdout), (2, ""));
    assert!(none.stderr.contains("Usage: lowrank [OPTIONS] <COMMAND>"));
}

#[test]
fn completions_of_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = lowrank(&format!("completions {shell}"));
        assert_eq!((script.code, &*script.stderr), (0, ""));
        assert!(
            script.stdout.contains("target-modules")
                && script.stdout.contains("convert")
                && script.stdout.contains("lowrank"),
            "{shell}"
        );
    }
}

#[test]
fn the_version_is_the_crates() {
    assert_eq!(lowrank("--version").stdout, format!("lowrank {}\n", env!("CARGO_PKG_VERSION")));
}

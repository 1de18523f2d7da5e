//! Misspelt keys find the right one.

use super::LoraConfig;

#[test]
fn planted_typos_find_the_right_key() {
    const TYPOS: [(&str, &str); 60] = [
        ("lora_aplha", "lora_alpha"),
        ("lora_alfa", "lora_alpha"),
        ("loraalpha", "lora_alpha"),
        ("lora-alpha", "lora_alpha"),
        ("LORA_ALPHA", "lora_alpha"),
        ("lora_alphas", "lora_alpha"),
        ("lora_drop_out", "lora_dropout"),
        ("lora_droput", "lora_dropout"),
        ("lora_dropouts", "lora_dropout"),
        ("loradropout", "lora_dropout"),
        ("lora_bais", "lora_bias"),
        ("lorabias", "lora_bias"),
        ("target_module", "target_modules"),
        ("targets_modules", "target_modules"),
        ("target_moduls", "target_modules"),
        ("targetmodules", "target_modules"),
        ("traget_modules", "target_modules"),
        ("target-modules", "target_modules"),
        ("target_modlues", "target_modules"),
        ("exclude_module", "exclude_modules"),
        ("excluded_modules", "exclude_modules"),
        ("exlude_modules", "exclude_modules"),
        ("module_to_save", "modules_to_save"),
        ("modules_to_saved", "modules_to_save"),
        ("modules_save", "modules_to_save"),
        ("modulestosave", "modules_to_save"),
        ("fan_in_fanout", "fan_in_fan_out"),
        ("fan_in_fan_ou", "fan_in_fan_out"),
        ("fanin_fanout", "fan_in_fan_out"),
        ("biass", "bias"),
        ("bais", "bias"),
        ("init_lora_weight", "init_lora_weights"),
        ("init_lora_wieghts", "init_lora_weights"),
        ("initlora_weights", "init_lora_weights"),
        ("init_weights_lora", "init_lora_weights"),
        ("layer_to_transform", "layers_to_transform"),
        ("layers_to_transfrom", "layers_to_transform"),
        ("layers_transform", "layers_to_transform"),
        ("layer_pattern", "layers_pattern"),
        ("layers_patern", "layers_pattern"),
        ("rank_patern", "rank_pattern"),
        ("rank_patterns", "rank_pattern"),
        ("ranks_pattern", "rank_pattern"),
        ("alpha_patern", "alpha_pattern"),
        ("aplha_pattern", "alpha_pattern"),
        ("alpha_patterns", "alpha_pattern"),
        ("use_rs_lora", "use_rslora"),
        ("use_rslroa", "use_rslora"),
        ("userslora", "use_rslora"),
        ("use_dorra", "use_dora"),
        ("task_typ", "task_type"),
        ("tasktype", "task_type"),
        ("inference_mod", "inference_mode"),
        ("infrence_mode", "inference_mode"),
        ("base_model_name_or_pth", "base_model_name_or_path"),
        ("base_model_name_path", "base_model_name_or_path"),
        ("base_model_name", "base_model_name_or_path"),
        ("revison", "revision"),
        ("group_mod", "group_mode"),
        ("groupmode", "group_mode"),
    ];
    let missed: Vec<_> = TYPOS
        .iter()
        .filter(|(typo, right)| {
            let table = [((*typo).to_owned(), 1.into())].into_iter().collect();
            let error = LoraConfig::from_table(&table, "run.toml").unwrap_err().to_string();
            !error.ends_with(&format!("unknown key `{typo}`, nearest is `{right}`"))
        })
        .collect();
    assert!(missed.len() <= 5, "{missed:?}");
}

//! Names the adapter that the tests run on, or says why there is none.

use std::process::ExitCode;

use burn::tensor::Device;

fn main() -> ExitCode {
    match Device::wgpu_options().init_with_setup() {
        Ok((_, setup)) => {
            let adapter = setup.adapter.get_info();
            println!("{} by {}", adapter.name, adapter.backend);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

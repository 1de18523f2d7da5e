# Sourced by `conv1d` and `step` with the repository as the working directory: builds the harness, and sets `harness` to it and
# LOWRANK_PYTHON to a Python that has the packages of requirements.txt.

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/bench}
cargo build --release --quiet --locked --manifest-path bench/Cargo.toml
harness=$CARGO_TARGET_DIR/release/lowrank-bench

if [[ -z ${LOWRANK_PYTHON:-} ]]; then
    export LOWRANK_PYTHON=$PWD/target/bench-venv/bin/python
    # The stamp is written last, so that an interrupted installation is begun again.
    wanted=$(cat bench/requirements.txt golden/requirements.txt)
    stamp=target/bench-venv/complete
    if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
        rm -rf target/bench-venv
        python3 -m venv target/bench-venv
        "$LOWRANK_PYTHON" -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
        printf '%s\n' "$wanted" >"$stamp"
    fi
fi

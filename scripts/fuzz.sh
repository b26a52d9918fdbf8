#!/usr/bin/env bash
# The fuzzers of tests/fuzz, with the project's stable toolchain: libFuzzer comes with libfuzzer-sys, and the compiler's
# coverage is asked for by name, as `cargo fuzz build --sanitizer none` does on nightly. What a run learns is kept in
# target/fuzz/corpus, what it finds in target/fuzz/artifacts; both begin from the inputs committed in tests/fuzz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/common.sh
source scripts/lib/common.sh

mapfile -t targets < <(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' tests/fuzz/Cargo.toml)

usage() {
  echo "usage: fuzz.sh [TARGET|all] [SECONDS]    all of them for 10 s each, unless it is said otherwise"
  echo "       fuzz.sh TARGET FILE               one input, once more"
  echo "targets: ${targets[*]}"
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
(($# <= 2)) || { usage >&2; exit 2; }
wanted=${1:-all} amount=${2:-10}
if [[ $wanted != all ]]; then
  [[ " ${targets[*]} " == *" $wanted "* ]] || { echo "fuzz.sh: no target $wanted" >&2; usage >&2; exit 2; }
  targets=("$wanted")
fi
if [[ ! $amount =~ ^[1-9][0-9]{0,5}$ && ! (-f $amount && $wanted != all) ]]; then
  echo "fuzz.sh: $amount: a number of seconds, or the file of an input of one target" >&2
  exit 2
fi

((EUID != 0)) || install_missing "${build_packages[@]}"
find_cargo
# libFuzzer is C++; clang has what g++ has.
command -v c++ >/dev/null || export CXX=clang++

say "Building the fuzzers: ${targets[*]}"
host=$(rustc -vV | sed -n 's/^host: //p')
# One flag a line; for the host named as a target, so that build scripts and macros are left as they are.
flags=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  --cfg=fuzzing
)
RUSTFLAGS="${flags[*]}" cargo build --release --locked --manifest-path tests/fuzz/Cargo.toml \
  --target-dir target/fuzz --target "$host" "${targets[@]/#/--bin=}"

for target in "${targets[@]}"; do
  fuzzer=target/fuzz/$host/release/$target
  if [[ -f $amount ]]; then exec "$fuzzer" "$amount"; fi
  say "$target: $amount s"
  corpus=target/fuzz/corpus/$target artifacts=target/fuzz/artifacts/$target
  mkdir -p "$corpus" "$artifacts"
  inputs=("$corpus")
  for kept in "tests/fuzz/corpus/$target" "tests/fuzz/regressions/$target"; do
    [[ ! -d $kept ]] || inputs+=("$kept")
  done
  options=(-max_total_time="$amount" -timeout=10 -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1
    -artifact_prefix="$artifacts/")
  [[ ! -f tests/fuzz/dictionaries/$target ]] || options+=(-dict="tests/fuzz/dictionaries/$target")
  if ! "$fuzzer" "${options[@]}" "${inputs[@]}"; then
    echo "fuzz.sh: $target failed; the input is in $artifacts, and \`scripts/fuzz.sh $target FILE\` runs it again" >&2
    exit 1
  fi
done

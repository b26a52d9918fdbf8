#!/usr/bin/env bash
# Operations, faults and traffic in a random order, in namespaces, for as long as is asked; stops where something does not hold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/common.sh
source scripts/lib/common.sh

usage() { echo "usage: soak.sh MINUTES [SEED]    the seed gives a run's order again"; }

case ${1:-} in -h | --help) usage; exit 0 ;; esac
if (($# < 1 || $# > 2)) || [[ ! $1 =~ ^[1-9][0-9]{0,4}$ || ! ${2:-1} =~ ^[0-9]{1,19}$ ]]; then usage >&2; exit 2; fi

need_root "the soak"
install_missing "${build_packages[@]}" "${lab_packages[@]}"
find_cargo
trap 'scripts/lab.sh down --stale' EXIT
trap 'exit 130' INT TERM HUP

say "Building"
cargo build --release --locked --bin xlvs
cargo build --locked -p xlvs-tests --bin soak
target=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)
export XLVS_BIN=$target/release/xlvs

say "Soaking for $1 min"
"$target/debug/soak" "$@"

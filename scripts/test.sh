#!/usr/bin/env bash
# Everything that has to hold: formatting, lints, and all tests, those through network namespaces included (hence root).
# A filter runs a part: unit (the crates' own), a test binary by its name (wire, scenario, golden ...), races (the connection
# table's, by loom), setup (operators' set-ups from start to end), or any piece of a test's name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/common.sh
source scripts/lib/common.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  echo "usage: test.sh [unit | wire | scenario | setup | golden | races | A-PIECE-OF-A-TEST-NAME]"
  exit 0
fi
(($# <= 1)) || { echo "test.sh: one filter at most, found $#: $*" >&2; exit 2; }
filter=${1:-}

need_root "the test run"
install_missing "${build_packages[@]}" "${lab_packages[@]}" wrk iperf3 tcpdump iputils-ping ipvsadm iptables nftables keepalived shellcheck \
  vsftpd lftp coturn openssl systemd tshark valgrind
find_cargo

# A test that was killed could not take its laboratory down.
trap 'scripts/lab.sh down --stale' EXIT
trap 'exit 130' INT TERM HUP

if [[ -z $filter ]]; then
  say "Formatting, lints"
  cargo fmt --check
  cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
  cargo clippy --workspace --all-targets --locked -- -D warnings
  shellcheck -x scripts/*.sh scripts/lib/*.sh .ci/run
fi

# Races over the connection table, in every order that they can take. Replaces the atomics of the whole crate: a build of its own.
if [[ -z $filter || $filter == races ]]; then
  say "Races"
  cargo test --locked -p xlvs-dataplane --features loom --lib connection::race
fi
[[ $filter != races ]] || exit 0

say "Building the daemon"
cargo build --release --locked --bin xlvs
# Beside it, where `xlvs wrap` finds it.
cargo build --release --locked -p xlvs-preload
XLVS_BIN=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)/release/xlvs
export XLVS_BIN

say "Tests${filter:+: $filter}"
is_binary() { [[ $filter =~ ^[a-z_]+$ ]] && grep -q "^name = \"$filter\"" tests/Cargo.toml; }
# The tests drive a daemon of the release profile; they themselves keep their overflow checks and debug assertions.
if command -v cargo-nextest >/dev/null; then
  case $filter in
    '') cargo nextest run --workspace --locked ;;
    unit) cargo nextest run --workspace --locked -E 'kind(lib) + kind(bin)' ;;
    *)
      if is_binary; then
        cargo nextest run --locked -p xlvs-tests -E "binary(=$filter)"
      else
        cargo nextest run --workspace --locked "$filter"
      fi ;;
  esac
else
  # One test at a time where they share the machine's network.
  case $filter in
    '') cargo test --workspace --locked --no-fail-fast -- --test-threads=1 ;;
    unit) cargo test --workspace --locked --lib --bins ;;
    *)
      if is_binary; then
        cargo test --locked -p xlvs-tests --test "$filter" -- --test-threads=1
      else
        cargo test --workspace --locked -- --test-threads=1 "$filter"
      fi ;;
  esac
fi

# Seconds of each fuzzer: that they build and find their way. `scripts/fuzz.sh TARGET 600` is the long run.
if [[ -z $filter ]]; then
  scripts/fuzz.sh all 5
fi

#!/usr/bin/env bash
# AddressSanitizer over the packet path: the dataplane crate's own tests, those in memory and those through namespaces, every
# access of them checked: the mapped file of connections, the records' tables, the packet memory that the kernel shares. With the
# project's stable toolchain, whose runtime for it comes along; Miri, which would see more, knows neither mappings nor AF_XDP, and is
# of nightly alone. What a foreign function (the kernel) writes is not seen.
# Not part of test.sh: it builds all there is once more (target/sanitize), and takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/common.sh
source scripts/lib/common.sh

usage() { echo "usage: sanitize.sh [A-PIECE-OF-A-TEST-NAME]    all of the dataplane's tests, unless it is said otherwise"; }

case ${1:-} in -h | --help) usage; exit 0 ;; esac
(($# <= 1)) || { usage >&2; exit 2; }

need_root "the sanitizer's run, as tests of AF_XDP are among it,"
install_missing "${build_packages[@]}" ethtool iproute2 util-linux
find_cargo

host=$(rustc -vV | sed -n 's/^host: //p')
runtime=$(rustc --print sysroot)/lib/rustlib/$host/lib
if ! compgen -G "$runtime/librustc*_rt.asan.a" >/dev/null; then
  echo "sanitize.sh: this Rust toolchain has no AddressSanitizer for $host (no librustc-*_rt.asan.a in $runtime): use rustup's" \
    "toolchain for x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu" >&2
  exit 1
fi

# Reports name functions by it, and what is to be left out of them is told by such names.
symbolizer=$(compgen -c llvm-symbolizer | head -n 1 || true)
if [[ -z $symbolizer ]]; then
  echo "sanitize.sh: missing: llvm-symbolizer (Debian's package llvm)" >&2
  exit 1
fi
ASAN_SYMBOLIZER_PATH=$(command -v "$symbolizer")
export ASAN_SYMBOLIZER_PATH

say "Building the tests with AddressSanitizer"
# The flag is of nightly; RUSTC_BOOTSTRAP has the stable compiler take it. For the host named as a target, so that build scripts and
# macros are left as they are. C code that comes along (libxdp, ring) is not instrumented.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes"
# A use after return is found too; leaks are, at the end of each program. What is known of others' code is in the file.
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:suppressions=$PWD/scripts/lib/asan.suppressions
test=(cargo test --locked -p xlvs-dataplane --lib --tests --target-dir target/sanitize --target "$host")
"${test[@]}" --no-run

say "Tests${1:+: $1}"
# One at a time, as they share the machine's network, and a report stands below the name of its test.
if ! "${test[@]}" --no-fail-fast -- --test-threads=1 --nocapture ${1:+"$1"}; then
  echo "sanitize.sh: tests failed; a report of the sanitizer's begins with ==PID==ERROR" >&2
  exit 1
fi

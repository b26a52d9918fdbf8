# shellcheck shell=bash
# Sourced by demo.sh and test.sh: what a fresh Debian 12 machine lacks, and the Rust toolchain that is there.

say() { printf '\n== %s\n' "$*"; }

need_root() { # what needs it
  ((EUID == 0)) && return
  printf '%s: %s needs root (network namespaces, AF_XDP): run it as root, for example by sudo.\n' "$0" "$1" >&2
  exit 3
}

# A package counts as there when what we need of it is there, whichever package brought it.
present() { # package
  case $1 in
    build-essential) command -v cc >/dev/null && command -v make >/dev/null ;;
    libelf-dev) [[ -e /usr/include/libelf.h ]] ;;
    zlib1g-dev) [[ -e /usr/include/zlib.h ]] ;;
    iproute2) command -v ip >/dev/null ;;
    nginx-light) command -v nginx >/dev/null ;;
    util-linux) command -v nsenter >/dev/null && command -v setpriv >/dev/null ;;
    iputils-ping) command -v ping >/dev/null ;;
    coturn) command -v turnserver >/dev/null && command -v turnutils_uclient >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

install_missing() { # packages
  local package missing=()
  PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  for package in "$@"; do present "$package" || missing+=("$package"); done
  ((${#missing[@]} > 0)) || return 0
  command -v apt-get >/dev/null || {
    echo "$0: missing: ${missing[*]} (Debian's names); install them, there is no apt-get here to do it" >&2
    return 1
  }
  say "Installing ${missing[*]}"
  (
    log=$(mktemp) policy=/usr/sbin/policy-rc.d made_policy=0
    # shellcheck disable=SC2317 # called by the trap
    tidy() {
      rm -f "$log"
      ((made_policy == 0)) || rm -f "$policy"
    }
    trap tidy EXIT
    trap 'exit 130' INT TERM HUP
    # A package must not start a service on this host (nginx would take port 80) ...
    if [[ ! -e $policy ]]; then
      made_policy=1
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod +x "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get install -y -q --no-install-recommends "${missing[@]}")
    if ! { "${install[@]}" || { apt-get update -q && "${install[@]}"; }; } </dev/null >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      echo "$0: apt-get could not install ${missing[*]}" >&2
      exit 1
    fi
    # ... nor at its next boot.
    command -v systemctl >/dev/null || exit 0
    for package in "${missing[@]}"; do
      case $package in
        nginx-light) systemctl disable --quiet nginx 2>/dev/null || true ;;
        coturn | keepalived | vsftpd) systemctl disable --quiet "$package" 2>/dev/null || true ;;
      esac
    done
  )
}

# Under sudo the toolchain is often the invoking user's.
find_cargo() {
  command -v cargo >/dev/null && return
  local home
  for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
    if [[ -x $home/.cargo/bin/cargo ]]; then
      export PATH=$home/.cargo/bin:$PATH RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup} CARGO_HOME=${CARGO_HOME:-$home/.cargo}
      return
    fi
  done
  echo "$0: no Rust toolchain found (looked for cargo in PATH and in ~/.cargo/bin). Rust 1.95 or newer is needed:" \
    "https://rustup.rs, or a cargo in PATH." >&2
  exit 1
}

# shellcheck disable=SC2034 # for who sources this
build_packages=(clang m4 libelf-dev build-essential pkg-config zlib1g-dev)
# shellcheck disable=SC2034
lab_packages=(ethtool iproute2 nginx-light curl jq util-linux)

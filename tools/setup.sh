#!/usr/bin/env bash
# Makes this checkout ready: the Debian packages it needs, then .venv from requirements.lock. Quick where that is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin
started=$SECONDS

say() { printf 'setup: %s\n' "$*"; }
die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# The first Python of 3.11 or later that can make a virtual environment, and is not the one in .venv.
find_python() {
  local candidate probe='import os, sys, venv, ensurepip
sys.exit(sys.version_info < (3, 11) or sys.prefix == os.path.realpath(".venv"))'
  for candidate in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c "$probe" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# What the practice cluster, the tests and a build of flannel call; git and make may come with an archive, not a clone.
needed_packages() {
  printf '%s\n' ca-certificates debian-archive-keyring debootstrap git gpgv iproute2 iptables make openssh-client openssl systemd-container chromium
  find_python >/dev/null || echo python3-venv
  if { command -v go || [ -x /usr/local/go/bin/go ]; } >/dev/null && ! command -v gcc >/dev/null; then
    printf '%s\n' gcc libc6-dev
  fi
}

install_packages() {
  local package missing=()
  if ! command -v apt-get >/dev/null; then
    say "no apt here: $(needed_packages | tr '\n' ' ')are Debian's names of what the practice cluster and its tests need"
    return
  fi
  while read -r package; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done < <(needed_packages)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    die "missing Debian packages, and neither root nor sudo here; as root: apt-get install ${missing[*]}"
  fi
  say "missing Debian packages, installed now by apt-get: ${missing[*]}"
  as_root apt-get -qq update || say "apt-get update failed; going on with the package lists that are here"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends \
    "${missing[@]}" </dev/null || die "apt-get could not install ${missing[*]}: its message is above"
}

# A new .venv, unless this one works and was made here: the scripts in a copied one still start the old Python.
make_venv() {
  local python
  if .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
    [ "$(head -n 1 .venv/.made-here 2>/dev/null || pwd)" = "$(pwd)" ]; then
    return
  fi
  python=$(find_python) || die "Python 3.11 or later with venv is needed, and $(python3 --version 2>&1 || echo 'no python3') is" \
    "all there is. Debian 12, Ubuntu 24.04 and later have it (apt-get install python3-venv)."
  say "making .venv with $("$python" --version) ($python)"
  "$python" -m venv --clear .venv
}

# uv comes by pip, at the version and with one of the hashes that the lock has for it.
install_uv() {
  local lines
  .venv/bin/uv --version >/dev/null 2>&1 && return
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
  lines=$(mktemp)
  awk '/^[^ #]/ {mine = /^uv==/} mine' requirements.lock >"$lines"
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r "$lines"
  rm -f "$lines"
}

install_packages
stamp=$(pwd; cat pyproject.toml requirements.lock tools/setup.sh | sha256sum)
if [ "$stamp" = "$(cat .venv/.made-here 2>/dev/null)" ] && .venv/bin/python -c 'import runbook' 2>/dev/null; then
  say "nothing to do"
  exit 0
fi
make_venv
rm -f .venv/.made-here
install_uv
say "installing from requirements.lock, every file checked by its hash"
# Compiled once, here: where PYTHONDONTWRITEBYTECODE is set every start would compile anew what it imports, for seconds.
.venv/bin/uv pip sync -q --compile-bytecode --python .venv/bin/python --require-hashes requirements.lock
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation --editable .
.venv/bin/python -m compileall -q runbook
printf '%s\n' "$stamp" >.venv/.made-here
say "done in $((SECONDS - started)) s: $(.venv/bin/python --version), $(.venv/bin/uv pip list -q --python .venv/bin/python | tail -n +3 | wc -l) packages in .venv"

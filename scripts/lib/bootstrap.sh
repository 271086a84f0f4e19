# shellcheck shell=bash
# Sets up a machine for Atoll: system packages, a Python, a virtual environment from the lock.
#
# Owns what `.venv/` holds and how it gets there. Knows nothing of what is run in it. Sourced by
# scripts/run, scripts/test and scripts/bench, which call `bootstrap` and then use `$ATOLL_VENV`.
# Idempotent; when nothing has changed it costs a few tens of milliseconds and no network.
#
# Settings: ATOLL_PYTHON (an interpreter to use instead of the one that is found).

ATOLL_CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
ATOLL_VENV="$ATOLL_CHECKOUT/.venv"
ATOLL_LOCK="$ATOLL_CHECKOUT/requirements.lock"

# 0.8 is the first that reads dependency groups in `pip compile`; a 1.0 may change its commands.
ATOLL_UV_BOUNDS='uv>=0.8,<1'

say() { printf 'atoll: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

# Runs a command as root, directly or through sudo; fails without a prompt where neither works.
_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        return 1
    fi
}

# Installs Debian packages, or names the command that would.
_install_packages() {
    local wanted="apt-get install -y $*"
    if ! command -v apt-get >/dev/null 2>&1; then
        fail "these Debian packages (or your system's equivalents) are missing: $*"
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
        fail "system packages are missing and this user cannot install them. As root run: $wanted"
    fi
    say "installing system packages: $*"
    if ! _as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >&2; then
        # A fresh image has no package lists, or stale ones.
        _as_root apt-get update -q >&2 || true
        _as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >&2 ||
            fail "system packages could not be installed. Run this and try again: sudo apt-get update && sudo $wanted"
    fi
}

_bootstrap_packages() {
    local missing=()
    command -v fusermount3 >/dev/null 2>&1 || missing+=(fuse3)
    command -v pkg-config >/dev/null 2>&1 || missing+=(pkg-config)
    command -v gcc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
    # pyfuse3 links against libfuse3; once it is built nothing needs the headers any more.
    pkg-config --exists 'fuse3 >= 3.2' 2>/dev/null || missing+=(libfuse3-dev)
    [ "${#missing[@]}" -eq 0 ] || _install_packages "${missing[@]}"
}

# Whether $1 runs, is at least 3.11 (or exactly $2, such as 3.13), and has what a build needs.
# The names of pyenv's shims are on PATH also for versions that do not run: only running tells.
_python_runs() {
    "$1" - "${2:-}" >/dev/null 2>&1 <<'PYTHON'
import sys

wanted = sys.argv[1]
assert sys.version_info >= (3, 11)
assert not wanted or "%d.%d" % sys.version_info[:2] == wanted
PYTHON
}
_python_builds() {
    "$1" - >/dev/null 2>&1 <<'PYTHON'
import ensurepip, pathlib, sysconfig, venv

assert pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()
PYTHON
}

# Prints the first interpreter that satisfies both; the version may be demanded as $1.
_find_python() {
    local wanted="${1:-}" candidate
    local candidates=()
    if [ -n "$wanted" ]; then
        candidates=("python$wanted" "/usr/bin/python$wanted" "/usr/local/bin/python$wanted"
            "${PYENV_ROOT:-$HOME/.pyenv}/versions/$wanted".*/bin/python3)
    else
        [ -z "${ATOLL_PYTHON:-}" ] || candidates+=("$ATOLL_PYTHON")
        candidates+=(python3.11 python3.12 python3.13 python3.14 python3
            /usr/bin/python3 /usr/local/bin/python3
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-9].*/bin/python3)
    fi
    for candidate in "${candidates[@]}"; do
        if _python_runs "$candidate" "$wanted" && _python_builds "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

_uv_is_bounded() { [[ "$("$1" --version 2>/dev/null)" =~ ^uv\ 0\.([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -ge 8 ]; }

# Prints a uv that keeps the bounds: the environment's own, the one on PATH, or a new one from pip.
_find_uv() {
    local venv="$1" candidate
    for candidate in "$venv/bin/uv" "$(command -v uv || true)"; do
        if [ -n "$candidate" ] && _uv_is_bounded "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "$ATOLL_UV_BOUNDS" >&2 &&
        _uv_is_bounded "$venv/bin/uv" && printf '%s\n' "$venv/bin/uv"
}

# Brings the packages in venv $1 to the lock. Every file is checked against the lock's hashes.
_install_locked() {
    local venv="$1" uv
    if uv="$(_find_uv "$venv")" &&
        "$uv" pip sync -q --python "$venv/bin/python" --require-hashes "$ATOLL_LOCK" >&2; then
        return 0
    fi
    # pip knows settings that uv does not read: mirrors and certificates in pip.conf.
    say "uv could not install from the lock; trying pip with the same lock"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
        -r "$ATOLL_LOCK" >&2
}

# Makes venv $1 equal to the lock, with this checkout installed in it as `atoll`.
_bootstrap_environment() {
    local venv="$1" wanted="${2:-}" python stamp
    if ! _python_runs "$venv/bin/python" "$wanted"; then
        _bootstrap_packages
        if ! python="$(_find_python "$wanted")"; then
            [ -z "$wanted" ] || return 1
            _install_packages python3 python3-venv python3-dev
            python="$(_find_python)" ||
                fail "Python 3.11 or newer is needed. Install one and name it: ATOLL_PYTHON=/path/to/python3"
        fi
        say "making ${venv#"$ATOLL_CHECKOUT"/} with $python"
        "$python" -m venv --clear "$venv" || fail "$python could not make a virtual environment in $venv"
    fi
    stamp="$(cat "$ATOLL_LOCK" "$ATOLL_CHECKOUT/pyproject.toml" | sha256sum)"
    [ "$(cat "$venv/atoll-lock.sha256" 2>/dev/null)" = "$stamp" ] && return 0
    _bootstrap_packages
    say "installing the locked dependencies into ${venv#"$ATOLL_CHECKOUT"/}"
    _install_locked "$venv" ||
        fail "the dependencies could not be installed; see the lines above, then run this again"
    # hatchling and editables come from the lock: nothing unlocked is used for our own package.
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps \
        --no-build-isolation --editable "$ATOLL_CHECKOUT" >&2 || fail "atoll itself could not be installed into $venv"
    # Installers leave this to the first import, which may not be allowed to write: a node would
    # then compile its libraries at every start, for more than a second.
    "$venv/bin/python" -m compileall -q "$venv"/lib/python*/site-packages >/dev/null 2>&1 || true
    "$venv/bin/python" -m compileall -q "$ATOLL_CHECKOUT"/{protocol,node,fusefs,server} || true
    printf '%s\n' "$stamp" >"$venv/atoll-lock.sha256"
}

# Everything that scripts need, in .venv. Scripts started at the same time wait for each other.
bootstrap() {
    exec 9<"$ATOLL_CHECKOUT/scripts/lib"
    flock 9
    command -v fusermount3 >/dev/null 2>&1 || _bootstrap_packages
    _bootstrap_environment "$ATOLL_VENV"
    exec 9<&-
}

# Programs that tests let save files. A machine that cannot get them leaves those tests out, loudly.
bootstrap_programs() {
    local missing=() program
    for program in vim rsync git; do
        command -v "$program" >/dev/null 2>&1 || missing+=("$program")
    done
    command -v emacs >/dev/null 2>&1 || missing+=(emacs-nox)
    [ "${#missing[@]}" -eq 0 ] || (_install_packages --no-install-recommends "${missing[@]}") ||
        say "!! LEFT OUT: tests with ${missing[*]}"
}

# A second environment with Python version $1 in .venv-$1; fails when there is no such Python.
bootstrap_version() {
    exec 9<"$ATOLL_CHECKOUT/scripts/lib"
    flock 9
    local outcome=0
    _bootstrap_environment "$ATOLL_CHECKOUT/.venv-$1" "$1" || outcome=$?
    exec 9<&-
    return "$outcome"
}

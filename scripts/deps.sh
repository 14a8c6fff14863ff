#!/usr/bin/env bash
# Installs what the tests and the demo need and is missing, by apt.
#
#   deps.sh [PROGRAM...]   these too, each the name of its package
set -euo pipefail

missing=()
need() { # COMMAND PACKAGE...
	command -v "$1" >/dev/null || missing+=("${@:2}")
}
need_file() { # GLOB PACKAGE...
	compgen -G "$1" >/dev/null || missing+=("${@:2}")
}

if ! command -v go >/dev/null; then
	echo 'Go is missing: install Go 1.26 or later; the one that Debian 12 packages is too old' >&2
	exit 1
fi
need gcc gcc libc6-dev # the race detector
need erl erlang-base
need erl_call erlang-base
need_file '/usr/lib/erlang/lib/inets-*' erlang-inets
need_file '/usr/lib/erlang/lib/eunit-*' erlang-eunit
need_file '/usr/lib/erlang/lib/erl_interface-*/include/ei.h' erlang-dev
need elixir elixir
need mix elixir
need rebar3 rebar3 # the mix release of the tests has the OTP application as a dependency
need nft nftables
need ip iproute2
need ss iproute2
need unshare util-linux
need curl curl
need qemu-system-x86_64 qemu-system-x86
need xz xz-utils # compressed kernel modules
need_file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
need bpftool bpftool # what it prints of the maps is documented
need clang-19 clang-19 # the kernel programs; another version makes other objects
need llvm-strip-19 llvm-19
need_file '/usr/include/bpf/bpf_core_read.h' libbpf-dev
for program; do need "$program" "$program"; done

if ((${#missing[@]} == 0)); then
	exit 0
fi
echo "installing: ${missing[*]}"
if ((EUID != 0)); then
	echo "this needs root: run it as root, or install the packages above yourself" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

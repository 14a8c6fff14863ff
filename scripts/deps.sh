#!/usr/bin/env bash
# Installs what the tests and the demo need and is missing, by apt.
#
#   deps.sh [GROUP|PROGRAM...]   these too: a program is the name of its package,
#                                the one group is "bench", what oneport is compared with
set -euo pipefail

missing=()
services=() # those of the missing packages that would start one, and start it again at each boot
need() { # COMMAND PACKAGE...
	command -v "$1" >/dev/null || missing+=("${@:2}")
}
need_file() { # GLOB PACKAGE...
	compgen -G "$1" >/dev/null || missing+=("${@:2}")
}

need_service() { # COMMAND SERVICE PACKAGE...
	command -v "$1" >/dev/null || { missing+=("${@:3}"); services+=("$2"); }
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
for wanted; do
	case $wanted in
	bench)
		need_service haproxy haproxy haproxy
		need_service nginx nginx nginx
		need_file '/usr/lib/nginx/modules/ngx_stream_module.so' libnginx-mod-stream
		need socat socat
		;;
	*) need "$wanted" "$wanted" ;;
	esac
done

if ((${#missing[@]} == 0)); then
	exit 0
fi
echo "installing: ${missing[*]}"
if ((EUID != 0)); then
	echo "this needs root: run it as root, or install the packages above yourself" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive

# A proxy is wanted as a program. Its package starts a service unless a policy
# forbids it (invoke-rc.d(8)), for as long as the installation takes.
if ((${#services[@]} > 0)); then
	policy=/usr/sbin/policy-rc.d
	restore() {
		rm -f "$policy"
		if [[ -e $policy.before-oneport ]]; then mv "$policy.before-oneport" "$policy"; fi
	}
	# If it is there already, an earlier run was killed, and the policy is that run's.
	if [[ -e $policy && ! -e $policy.before-oneport ]]; then mv "$policy" "$policy.before-oneport"; fi
	trap restore EXIT
	trap 'exit 1' INT TERM HUP
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
for service in "${services[@]}"; do
	update-rc.d "$service" disable >/dev/null
done

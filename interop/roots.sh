#!/usr/bin/env bash
# roots.sh OTP|apps: makes a Debian root with that release of Erlang/OTP, or
# with the applications, and prints its directory. A root that is there is left
# as it is; remove it to have it made again.
#
# The mirror is the machine's own, as apt is configured. The roots are under
# $XDG_CACHE_HOME/oneport/roots (~/.cache).
set -euo pipefail

readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/oneport/roots
case ${1-} in
23) suite=bullseye ;;
25) suite=bookworm ;;
27) suite=trixie ;;
29) suite=sid ;;
apps) suite=bookworm ;;
*)
	echo 'usage: roots.sh 23|25|27|29|apps' >&2
	exit 2
	;;
esac
readonly name=$1 suite
readonly root=$cache/$name-$suite
mkdir -p "$cache"
exec {lock}>"$cache/lock"
flock "$lock"
if [[ -d $root ]]; then
	echo "$root"
	exit
fi
((EUID == 0)) || { echo 'making a Debian root needs root' >&2 && exit 1; }

mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
	awk '$1 == "Debian" && $2 == "Debian" && $3 !~ /-/ { print $4; exit }')
[[ -n $mirror ]] || { echo 'no mirror of Debian in the configuration of apt' >&2 && exit 1; }
new=$(mktemp -d "$cache/$name-new.XXXXXX")
trap 'rm -rf --one-file-system "$new"' EXIT
chmod 755 "$new"
echo "making $root from $suite; it is kept" >&2

# inside COMMAND...: run in the new root. It has no network, so that a service
# which a package starts finds no port of this machine, and its processes end
# with the command.
inside() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		unshare --net --pid --mount --uts --fork --kill-child bash -euc '
		hostname localhost
		ip link set lo up 2>/dev/null || true
		mount -t proc proc "$0/proc"
		exec chroot "$0" "$@"' "$new" "$@"
}

packages=erlang-base,erlang-crypto
debootstrap --variant=minbase --include="$packages" "$suite" "$new" "$mirror" >"$cache/$name.log" 2>&1 ||
	{ tail -n 20 "$cache/$name.log" >&2 && exit 1; }
# No package starts a service.
printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
chmod 755 "$new/usr/sbin/policy-rc.d"
if [[ $name == apps ]]; then
	{
		cp /etc/resolv.conf "$new/etc/resolv.conf"
		apt=(apt-get install -y --no-install-recommends rabbitmq-server amqp-tools ejabberd erlang-mnesia)
		chroot "$new" apt-get update -qq
		chroot "$new" "${apt[@]}" --download-only
		inside "${apt[@]}" --no-download
	} >>"$cache/$name.log" 2>&1 || { tail -n 20 "$cache/$name.log" >&2 && exit 1; }
fi
rm -rf "$new/var/cache/apt/archives/"*.deb "$new/var/lib/apt/lists/"*
mv "$new" "$root"
trap - EXIT
echo "$root"

#!/bin/sh
# Builds the mix release beside this script, offline, and has it connect to a node
# through a door. Succeeds if the node answers. Without a node it runs until it is
# stopped.
#
#   mix_release.sh DOOR_PORT [TARGET_NODE]
#
# The door must be the EPMD of this host too, as `oneport serve` is. COOKIE is
# the nodes' cookie, RELEASE_NODE the release's own name, RELEASE_VM_ARGS another
# vm.args. Needs mix and rebar3.
set -eu

export DOOR_PORT="${1:?usage: mix_release.sh DOOR_PORT [TARGET_NODE]}"
export TARGET="${2:-}"

out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
trap 'exit 1' INT TERM

# HOME: no mix or hex of the user is needed, and none is touched.
export HOME="$out" MIX_ENV=prod MIX_BUILD_PATH="$out/build"
export MIX_REBAR3="${MIX_REBAR3:-$(command -v rebar3)}"

cd "$(dirname "$0")/mix_release"
mix release --quiet --path "$out/release"

export RELEASE_COOKIE="${COOKIE:-oneport}" ERL_EPMD_PORT="$DOOR_PORT"
timeout 120 "$out/release/bin/caller" start

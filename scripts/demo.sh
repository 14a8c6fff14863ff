#!/usr/bin/env bash
# Two hosts behind a firewall that lets one TCP port in, a daemon on each, real
# nodes, and what they can do. Everything is made here and removed at the end.
# Needs root; `make demo` installs and builds what it needs before.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly oneport=$PWD/bin/oneport beams=$PWD/erlang/ebin
readonly one=oneport-demo-$$-1 two=oneport-demo-$$-2
readonly ip1=10.43.69.1 ip2=10.43.69.2
readonly size=10000000 # bytes of the transfers
dir=$(mktemp -d)
failed=

if [[ -t 1 ]]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
	bold='' green='' red='' plain=''
fi
title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
ok() { printf '  %s✓%s %s\n' "$green" "$plain" "$1"; }
die() {
	failed=1
	printf '  %s✗ %s%s\n' "$red" "$1" "$plain" >&2
	for log in "$dir"/*.log; do
		[[ -s $log ]] && printf '\n%s, the last lines:\n' "${log##*/}" >&2 && tail -n 15 "$log" >&2
	done
	exit 1
}

clean_up() {
	local status=$?
	trap - EXIT
	((status == 0)) || [[ -n $failed ]] || printf '\n%sstopped: exit code %d%s\n' "$red" "$status" "$plain" >&2
	# Whatever runs in the two namespaces was started here.
	for signal in TERM KILL; do
		for _ in {1..30}; do
			mapfile -t pids < <(for ns in "$one" "$two"; do ip netns pids "$ns" 2>/dev/null; done)
			((${#pids[@]} > 0)) || break 2
			kill -"$signal" "${pids[@]}" 2>/dev/null || true
			sleep 0.1
		done
	done
	wait 2>/dev/null || true
	for ns in "$one" "$two"; do ip netns del "$ns" 2>/dev/null || true; done
	rm -rf "$dir"
	exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

((EUID == 0)) || die 'the demo makes network namespaces and needs root'

# on HOST COMMAND...: run on one of the two hosts
on() { ip netns exec "$@"; }
# start LOG HOST COMMAND...: the same, in the background until the end
start() {
	local log=$1
	shift
	on "$@" >"$dir/$log.log" 2>&1 </dev/null &
}
# until_true WHAT COMMAND...: wait for a condition, 10 s at most
until_true() {
	local what=$1
	shift
	for _ in {1..100}; do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	die "not within 10 s: $what"
}
# node NAME@IP HOST ARGS...: a node that stays
node() {
	local name=$1 host=$2
	shift 2
	start "${name%@*}" "$host" env HOME="$dir" erl -noinput -name "$name" -setcookie demo -start_epmd false "$@"
}
# erl_eval HOST NAME@IP EXPRESSION ARGS...: a node that evaluates and ends
erl_eval() {
	local host=$1 name=$2 expression=$3
	shift 3
	on "$host" env HOME="$dir" timeout 20 erl -noshell -name "$name" -setcookie demo -start_epmd false "$@" \
		-eval "$expression, halt()." 2>"$dir/eval.log"
}
registered() { "$oneport" nodes --json --control "$dir/$1.sock" | grep -q "\"name\": \"$2\""; }
control() { "$oneport" "$1" --control "$dir/2.sock" | sed 's/^/    /'; }

title 'Two hosts. The firewall of each lets TCP 4369 in, and nothing else.'
ip netns add "$one"
ip netns add "$two"
ip link add eth0 netns "$one" type veth peer name eth0 netns "$two"
for host in 1 2; do
	ns=$one ip=$ip1
	((host == 1)) || ns=$two ip=$ip2
	ip -n "$ns" addr add "$ip/24" dev eth0
	ip -n "$ns" link set lo up
	ip -n "$ns" link set eth0 up
	on "$ns" nft -f - <<-'RULES'
		table inet firewall {
			chain input {
				type filter hook input priority 0; policy drop;
				iif lo accept
				ct state established,related accept
				icmp type echo-request accept
				tcp dport 4369 accept
			}
		}
	RULES
done
start web "$two" env HOME="$dir" erl -noinput -eval "application:ensure_all_started(inets),
	file:write_file(\"$dir/index.html\", \"<h1>the same port</h1>\\n\"),
	{ok, _} = inets:start(httpd, [{port, 8080}, {bind_address, {127,0,0,1}}, {server_name, \"demo\"},
		{server_root, \"$dir\"}, {document_root, \"$dir\"}, {directory_index, [\"index.html\"]}])."
start oneport-1 "$one" "$oneport" serve --listen $ip1:4369 --listen 127.0.0.1:4369 --control "$dir/1.sock"
start oneport-2 "$two" "$oneport" serve --listen $ip2:4369 --listen 127.0.0.1:4369 --control "$dir/2.sock" --web http://127.0.0.1:8080
until_true 'the daemon of host 1 answers' "$oneport" status --control "$dir/1.sock"
until_true 'the daemon of host 2 answers' "$oneport" status --control "$dir/2.sock"
ok "oneport serve runs on both ($ip1, $ip2)"

title 'Two stock nodes, nothing installed in them.'
node a@$ip1 "$one"
node b@$ip2 "$two"
until_true 'node a registers' registered 1 a
until_true 'node b registers' registered 2 b
port=$("$oneport" nodes --json --control "$dir/2.sock" | awk -F'[:,]' '/"name"/ { b = $2 ~ /"b"/ } b && /"port"/ { print $2 + 0 }')
[[ -n $port ]] || die 'the port of node b is not known'
if on "$one" timeout 1 bash -c "exec 3<>/dev/tcp/$ip2/$port" 2>/dev/null; then
	die "the firewall lets port $port of node b in"
fi
ok "b listens on port $port, which the firewall does not let in"
# From a to b and back, on a itself: asked from a helper on a's own host.
on_a() { erl_eval "$one" "ask$RANDOM@$ip1" "io:format(\"~p\", [rpc:call('a@$ip1', $1)])"; }
[[ $(on_a "net_adm, ping, ['b@$ip2']") == pong ]] || die 'a does not reach b'
ok 'a pings b: pong'
[[ $(erl_eval "$two" "c@$ip2" "io:format(\"~p\", [net_adm:ping('a@$ip1')])") == pong ]] || die 'c does not reach a'
ok 'and a node beside b pings a: pong'

# transfer NAME ARGS...: 10 MB each way between a new node on host 1 and b
transfer() {
	local name=$1
	shift
	erl_eval "$one" "$name@$ip1" "
		Data = rand:bytes($size), Sum = erlang:md5(Data),
		pong = net_adm:ping('b@$ip2'),
		{There, Sum} = timer:tc(rpc, call, ['b@$ip2', erlang, md5, [Data]]),
		{Back, Copy} = timer:tc(rpc, call, ['b@$ip2', binary, copy, [<<\"0123456789\">>, $size div 10]]),
		true = Copy =:= binary:copy(<<\"0123456789\">>, $size div 10),
		io:format(\"10 MB to b in ~b ms, 10 MB back in ~b ms, checked\", [There div 1000, Back div 1000])" "$@"
}
result=$(transfer stock) || die 'the transfer between stock nodes'
ok "$result"

title 'The same with the carrier: -proto_dist oneport, no EPMD asked.'
result=$(transfer carrier -proto_dist oneport -pa "$beams") || die 'the transfer with the carrier'
ok 'pong, through an HTTP upgrade on port 4369'
ok "$result"

title 'A web page from the same port.'
page() { on "$one" curl -sS --max-time 5 "http://$ip2:4369/"; }
until_true 'the web server answers' page
[[ $(page) == '<h1>the same port</h1>' ]] || die "another page came: $(page)"
ok "curl http://$ip2:4369/  ->  $(page)"

title 'What the operator of host 2 sees.'
on "$one" env HOME="$dir" timeout 20 erl -noshell -name held@$ip1 -setcookie demo -start_epmd false -proto_dist oneport -pa "$beams" \
	-eval "net_adm:ping('b@$ip2'), timer:sleep(15000), halt()." >"$dir/held.log" 2>&1 &
carried() { "$oneport" connections --json --control "$dir/2.sock" | grep -q '"protocol": "upgrade"'; }
until_true 'the connections are listed' carried
echo '  $ oneport nodes'
control nodes
echo '  $ oneport connections'
control connections
printf '\n%sThat is all: one port.%s  See README.md for how to use it.\n' "$bold" "$plain"

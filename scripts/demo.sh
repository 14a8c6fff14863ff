#!/usr/bin/env bash
# Two hosts behind a firewall that lets one TCP port in, a daemon on each, real
# nodes, and what they can do. Everything is made here and removed at the end.
# Needs root; `make demo` installs and builds what it needs before.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly oneport=$PWD/bin/oneport beams=$PWD/erlang/ebin
readonly one=oneport-demo-$$-1 two=oneport-demo-$$-2
readonly ip1=10.43.69.1 ip2=10.43.69.2 ip61=fd43:69::1 ip62=fd43:69::2
readonly size=10000000 # bytes of the transfers
dir=
failed=
exec {stderr}>&2 # where it is also while a command's output is thrown away

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
	for log in ${dir:+"$dir"/*.log}; do
		[[ -s $log ]] && printf '\n%s, the last lines:\n' "${log##*/}" >&2 && tail -n 15 "$log" >&2
	done
	exit 1
}

clean_up() {
	local status=$?
	# To the end, also with a second ^C and with nobody reading any more.
	trap - EXIT
	trap '' INT TERM HUP PIPE
	set +e
	((status == 0)) || [[ -n $failed ]] || printf '\n%sstopped: exit code %d%s\n' "$red" "$status" "$plain" >&"$stderr"
	# Whatever runs in the two namespaces was started here.
	for signal in TERM KILL; do
		for _ in {1..30}; do
			mapfile -t pids < <(for ns in "$one" "$two"; do ip netns pids "$ns" 2>/dev/null; done)
			((${#pids[@]} > 0)) || break 2
			kill -"$signal" "${pids[@]}" 2>/dev/null
			sleep 0.1
		done
	done
	wait 2>/dev/null
	for ns in "$one" "$two"; do ip netns del "$ns" 2>/dev/null; done
	[[ -z $dir ]] || ! mountpoint -q "$dir/bpf" || umount "$dir/bpf"
	[[ -z $dir ]] || rm -rf "$dir"
	exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

((EUID == 0)) || die 'the demo makes network namespaces and needs root'
dir=$(mktemp -d)
export HOME=$dir ERL_CRASH_DUMP_SECONDS=0 # no cookie file, no crash dump elsewhere

# on HOST COMMAND...: run on one of the two hosts
on() { ip netns exec "$@" </dev/null; }
# start LOG HOST COMMAND...: the same, in the background until the end
start() {
	local log=$1
	shift
	on "$@" >"$dir/$log.log" 2>&1 &
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
	start "${name%@*}" "$host" erl -noinput -name "$name" -setcookie demo -start_epmd false "$@"
}
# erl_eval HOST NAME@IP EXPRESSION ARGS...: a node that evaluates and ends
erl_eval() {
	local host=$1 name=$2 expression=$3
	shift 3
	on "$host" timeout 20 erl -noshell -name "$name" -setcookie demo -start_epmd false "$@" \
		-eval "$expression, halt()." 2>"$dir/eval.log"
}
# ping HOST NAME@IP TARGET ARGS...: pong or pang, as a new node sees it
ping() {
	local host=$1 name=$2 target=$3
	shift 3
	erl_eval "$host" "$name" "io:format(\"~p\", [net_adm:ping('$target')])" "$@"
}
# opens HOST IP PORT: whether a TCP connection can be made
opens() { on "$1" timeout 1 bash -c "exec 3<>/dev/tcp/$2/$3" 2>/dev/null; }
# ask 1|2 COMMAND ARGS...: a command to the daemon of a host
ask() { "$oneport" "${@:2}" --control "$dir/$1.sock"; }
registered() { ask "$1" nodes --json | grep -q "\"name\": \"$2\""; }
# served PROTOCOL: how many connections in it the daemon of host 2 has served
served() { ask 2 status --json | sed -n "s/^ *\"$1\": \([0-9]*\),\{0,1\}$/\1/p" | grep . || echo 0; }

title 'Two hosts. The firewall of each lets TCP 4369 in, and nothing else.'
ip netns add "$one"
ip netns add "$two"
ip link add eth0 netns "$one" type veth peer name eth0 netns "$two"
for host in 1 2; do
	ns=$one ip=$ip1 ip6=$ip61
	((host == 1)) || ns=$two ip=$ip2 ip6=$ip62
	ip -n "$ns" addr add "$ip/24" dev eth0
	ip -n "$ns" addr add "$ip6/64" dev eth0 nodad
	ip -n "$ns" link set lo up
	ip -n "$ns" link set eth0 up
	ip netns exec "$ns" nft -f - <<-'RULES'
		table inet firewall {
			chain input {
				type filter hook input priority 0; policy drop;
				iif lo accept
				ct state established,related accept
				icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
				tcp dport 4369 accept
			}
		}
	RULES
done
start web "$two" erl -noinput -eval "{ok, _} = application:ensure_all_started(inets),
	ok = file:write_file(\"$dir/index.html\", \"<h1>the same port</h1>\\n\"),
	{ok, _} = inets:start(httpd, [{port, 8080}, {bind_address, {127,0,0,1}}, {server_name, \"demo\"},
		{server_root, \"$dir\"}, {document_root, \"$dir\"}, {directory_index, [\"index.html\"]}])."
start oneport-1 "$one" "$oneport" serve --listen "$ip1:4369" --listen "[$ip61]:4369" \
	--listen 127.0.0.1:4369 --listen '[::1]:4369' --control "$dir/1.sock" --node-socket "$dir/1.node" --shortcut off
start oneport-2 "$two" "$oneport" serve --listen "$ip2:4369" --listen "[$ip62]:4369" \
	--listen 127.0.0.1:4369 --listen '[::1]:4369' --control "$dir/2.sock" --node-socket "$dir/2.node" --web http://127.0.0.1:8080 --shortcut off
until_true 'the daemon of host 1 answers' ask 1 status
until_true 'the daemon of host 2 answers' ask 2 status
ok "oneport serve runs on both ($ip1 and $ip2, and IPv6)"

title 'Two stock nodes, nothing installed in them.'
node "a@$ip1" "$one"
node "b@$ip2" "$two"
node "b6@$ip62" "$two" -proto_dist inet6_tcp
until_true 'node a registers' registered 1 a
until_true 'node b registers' registered 2 b
until_true 'node b6 registers' registered 2 b6
port=$(ask 2 nodes --json | awk -F'[:,]' '/"name"/ { b = $2 ~ /"b"/ } b && /"port"/ { print $2 + 0 }')
[[ -n $port ]] || die 'the port of node b is not known'
opens "$two" $ip2 "$port" || die "node b does not listen on its port $port"
! opens "$one" $ip2 "$port" || die "the firewall lets port $port of node b in"
opens "$one" $ip2 4369 || die 'the firewall does not let port 4369 in'
ok "b listens on port $port, which is closed to the other host; 4369 is open"
# On a itself, asked from a helper on its own host.
[[ $(erl_eval "$one" "helper@$ip1" "io:format(\"~p\", [rpc:call('a@$ip1', net_adm, ping, ['b@$ip2'])])") == pong ]] ||
	die 'a does not reach b'
ok 'a pings b: pong'
[[ $(ping "$two" "c@$ip2" "a@$ip1") == pong ]] || die 'c, on the host of b, does not reach a'
ok 'c, beside b, pings a: pong'
[[ $(ping "$one" "a6@$ip61" "b6@$ip62" -proto_dist inet6_tcp) == pong ]] || die 'a6 does not reach b6 over IPv6'
ok 'over IPv6: pong'

# transfer NAME ARGS...: 10 MB each way between a new node on host 1 and b
transfer() {
	local name=$1
	shift
	erl_eval "$one" "$name@$ip1" "
		Data = rand:bytes($size), Sum = erlang:md5(Data),
		pong = net_adm:ping('b@$ip2'),
		{There, Sum} = timer:tc(rpc, call, ['b@$ip2', erlang, md5, [Data]]),
		ok = rpc:call('b@$ip2', persistent_term, put, [demo, Data]),
		{Back, Copy} = timer:tc(rpc, call, ['b@$ip2', persistent_term, get, [demo]]),
		Sum = erlang:md5(Copy),
		io:format(\"10 MB to b in ~b ms, 10 MB back in ~b ms, md5 checked\", [There div 1000, Back div 1000])" "$@"
}
result=$(transfer stock) || die 'the transfer between stock nodes'
ok "$result"

title 'The same with the carrier, -proto_dist oneport: an HTTP upgrade on port 4369.'
questions=$(served epmd)
carrier=(-proto_dist oneport -pa "$beams" -oneport node_socket="$dir/1.node")
result=$(transfer carrier "${carrier[@]}") || die 'the transfer with the carrier'
upgraded() { (($(served upgrade) > 0)); }
until_true 'the daemon of host 2 counts an upgrade' upgraded
[[ $(served epmd) == "$questions" ]] || die 'the carrier asked the EPMD of host 2'
ok 'pong, and EPMD was not asked'
ok "$result"
[[ $(ping "$one" "a6@$ip61" "b6@$ip62" -proto_dist oneport6 "${carrier[@]:2}") == pong ]] ||
	die 'the carrier does not reach b6 over IPv6'
ok 'over IPv6: pong'

title 'A web page from the same port.'
page() { on "$one" curl -fsS --max-time 5 "http://$ip2:4369/"; }
until_true 'the web server answers' page
[[ $(page) == '<h1>the same port</h1>' ]] || die "another page came: $(page)"
ok "curl http://$ip2:4369/  ->  $(page)"

title 'What the operator of host 2 sees.'
start held "$one" erl -noinput -name "held@$ip1" -setcookie demo -start_epmd false "${carrier[@]}" -eval "pong = net_adm:ping('b@$ip2')."
listed() {
	local connections
	connections=$(ask 2 connections --json) &&
		[[ $connections == *'"protocol": "handshake"'*'"protocol": "upgrade"'*'"path": "splice"'* ]]
}
until_true 'both kinds of connections are listed' listed
for command in nodes connections; do
	echo "  \$ oneport $command"
	ask 2 "$command" | sed 's/^/    /'
done
title 'A node that takes the connection itself: the daemon is out of the path.'
node "d@$ip2" "$two" -pa "$beams" -oneport node_socket="$dir/2.node" -eval '{ok, _} = application:ensure_all_started(oneport).'
receiving() { grep -q '"receiver connected","node":"d"' "$dir/oneport-2.log"; }
until_true 'node d takes connections' receiving
d=$(ask 2 nodes --json | awk -F'[:,]' '/"name"/ { d = $2 ~ /"d"/ } d && /"pid"/ { print $2 + 0 }')
node "e@$ip1" "$one" -eval "pong = net_adm:ping('d@$ip2'), Data = rand:bytes(1 bsl 20), Sum = erlang:md5(Data),
	(fun Loop(N) ->
		Sum = rpc:call('d@$ip2', erlang, md5, [Data]),
		ok = file:write_file(\"$dir/megabytes.new\", integer_to_list(N)),
		ok = file:rename(\"$dir/megabytes.new\", \"$dir/megabytes\"),
		Loop(N + 1)
	end)(1)."
megabytes() { cat "$dir/megabytes" 2>/dev/null || echo 0; }
sent() { (($(megabytes) >= $1)); }
until_true 'e sends to d' sent 10
between=$(on "$two" ss -Htnp state established "dst $ip1 and sport = :4369" | grep -c "pid=$d," || true)
[[ $between == 1 ]] || die "between e and d are $between connections"
ok 'e, a stock node, sends to d all the time; between the two BEAMs is one TCP connection:'
on "$two" ss -Htnp state established "dst $ip1 and sport = :4369" | grep "pid=$d," | awk '{ print "    " $3, "<->", $4, $5 }'
daemon2() { ask 2 status --json | awk -F'[:,]' '/"pid"/ { print $2 + 0 }'; }
kill -9 "$(daemon2)"
before=$(megabytes)
until_true 'the transfer goes on without the daemon' sent $((before + 50))
ok "kill -9 of the daemon after $before MB, md5 checked; now it is $(megabytes) MB, and it goes on"

title 'One kernel has both hosts, as with containers: past TCP, from socket to socket.'
[[ $(erl_eval "$one" "stop@$ip1" "io:format(\"~p\", [rpc:call('e@$ip1', erlang, halt, [])])") == '{badrpc,nodedown}' ]] || die 'e does not end'
# compare NAME FLAGS...: a daemon of host 2 with these flags, a node f there that
# takes connections itself, a node g on host 1, and how fast g talks to f
compare() {
	local name=$1
	shift
	start "oneport-2-$name" "$two" "$oneport" serve --listen "$ip2:4369" --listen 127.0.0.1:4369 \
		--control "$dir/2.sock" --node-socket "$dir/2.node" "$@"
	until_true "the daemon of host 2 answers ($name)" ask 2 status
	node "f$name@$ip2" "$two" -connect_all false -pa "$beams" -oneport node_socket="$dir/2.node" -eval '{ok, _} = application:ensure_all_started(oneport).'
	taking() { grep -q "\"receiver connected\",\"node\":\"f$name\"" "$dir/oneport-2-$name.log"; }
	until_true "node f takes connections ($name)" taking
	node "g$name@$ip1" "$one" -connect_all false -eval "
		F = 'f$name@$ip2', pong = net_adm:ping(F), timer:sleep(500),
		Median = fun(Count, Do) ->
			lists:nth(Count div 2, lists:sort([begin {T, _} = timer:tc(Do), T end || _ <- lists:seq(1, Count)]))
		end,
		Data = rand:bytes(1 bsl 20), Sum = erlang:md5(Data), Sum = rpc:call(F, erlang, md5, [Data]),
		Megabyte = Median(300, fun() -> 1048576 = rpc:call(F, erlang, byte_size, [Data]) end),
		Call = Median(3000, fun() -> 1 = rpc:call(F, erlang, abs, [-1]) end),
		ok = file:write_file(\"$dir/$name.new\", io_lib:format(\"~b MB/s in messages of 1 MB, ~b us for a small call\", [1048576 div Megabyte, Call])),
		ok = file:rename(\"$dir/$name.new\", \"$dir/$name\")."
	until_true "the comparison ($name)" test -s "$dir/$name"
}
mkdir "$dir/bpf"
pins=$dir/bpf/oneport
if mount -t bpf bpf "$dir/bpf" 2>"$dir/doctor.log" && "$oneport" doctor --pins "$pins" >"$dir/doctor.log"; then
	compare tcp --path handover
	ok "plain TCP:    $(<"$dir/tcp")"
	kill "$(daemon2)"
	until_true 'the end of the daemon' test ! -e "$dir/2.sock"
	compare shortcut --pins "$pins"
	ok "the shortcut: $(<"$dir/shortcut")"
	ask 2 connections >"$dir/connections"
	grep -q ' shortcut  *[1-9]' "$dir/connections" || die "nothing went the short way: $(<"$dir/connections")"
	echo '  $ oneport connections'
	sed 's/^/    /' "$dir/connections"
else
	echo '  left out: this host cannot have the shortcut. What it lacks (oneport doctor):'
	grep -v ' yes ' "$dir/doctor.log" | sed 's/^/    /' || true
fi

printf '\n%sThat is all: one port.%s  See README.md for how to use it.\n' "$bold" "$plain"

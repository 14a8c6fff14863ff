package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oneport/door"
	"oneport/internal/hosts"
)

// app is an application that works.
type app struct {
	name, version string
	shown         string // what it did
}

// testApps runs each application on hosts of its own.
func testApps(t *testing.T, program string) (found []app) {
	dir := makeRoot(t, "apps")
	for _, a := range []struct {
		app
		hosts []string
		run   func(*testing.T, []*site)
	}{
		{app{"RabbitMQ", packageVersion(t, dir, "rabbitmq-server"),
			"cluster of three; a queue declared on one node, filled on it, consumed on another; a node restarted; cluster status clean"},
			[]string{"alpha", "beta", "gamma"}, testRabbitMQ},
		{app{"ejabberd", packageVersion(t, dir, "ejabberd"),
			"`join_cluster`; an account made on one node is known on the other"},
			[]string{"alpha", "beta"}, testEjabberd},
		{app{"Mnesia", packageVersion(t, dir, "erlang-mnesia"),
			"table with disc copies on two nodes; transactions on both; a node killed and started again has all of it"},
			[]string{"alpha", "beta"}, testMnesia},
		{app{"Elixir", packageVersion(t, "", "elixir"),
			"two releases made by `mix release` with the carrier; calls both ways, by handover"},
			[]string{"alpha", "beta"}, testRelease},
	} {
		if t.Run(a.name, func(t *testing.T) {
			var sites []*site
			for _, h := range hosts.New(t, a.hosts...) {
				sites = append(sites, &site{Host: h, daemon: serve(t, program, h), root: h.Root(t, dir)})
			}
			a.run(t, sites)
		}) {
			found = append(found, a.app)
		}
	}
	return found
}

// site is a host that applications are installed on.
type site struct {
	*hosts.Host
	daemon *daemon
	root   *hosts.Root
}

// command runs something of an application. It has a process namespace, so that
// all that it starts, as whatever user, ends with it.
func (s *site) command(ctx context.Context, line ...string) *exec.Cmd {
	path := s.root.Path("/")
	command := s.Command(ctx, "unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child",
		"--mount-proc=" + filepath.Join(path, "proc"), "chroot", path}, line...)...)
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "HOSTNAME=" + s.Name}
	return command
}

// try runs a command to its end and returns what it prints.
func (s *site) try(t *testing.T, line ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	output, err := s.command(ctx, line...).CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

// do is try for a command that must succeed.
func (s *site) do(t *testing.T, line ...string) string {
	t.Helper()
	output, err := s.try(t, line...)
	if err != nil {
		t.Fatalf("%s on %s: %v\n%s", strings.Join(line, " "), s.Name, err, output)
	}
	return output
}

// write writes a file of the host's, as its user and mode.
func (s *site) write(t *testing.T, user, path, content string) {
	t.Helper()
	s.do(t, "sh", "-euc", `printf %s "$3" >"$2" && chown "$1:" "$2" && chmod 400 "$2"`, "sh", user, path, content)
}

// joined checks that connections of other hosts to a node have come through the
// door.
func (s *site) joined(t *testing.T, node string, protocol door.Protocol, path string) {
	t.Helper()
	var seen []door.Info
	eventually(t, "connections to "+node, func() bool {
		seen = s.daemon.to(t, node)
		for _, c := range seen {
			if c.Protocol == protocol && c.Path == path {
				return true
			}
		}
		return false
	})
}

func testRabbitMQ(t *testing.T, sites []*site) {
	for _, s := range sites {
		startRabbit(t, s)
	}
	for _, s := range sites[1:] {
		for _, command := range [][]string{{"stop_app"}, {"join_cluster", "rabbit@" + sites[0].Name}, {"start_app"}} {
			s.do(t, append([]string{"rabbitmqctl"}, command...)...)
		}
	}
	wantCluster(t, sites)
	const url = "amqp://guest:guest@127.0.0.1"
	sites[0].do(t, "amqp-declare-queue", "-u", url, "-d", "-q", "interop")
	sites[0].do(t, "amqp-publish", "-u", url, "-r", "interop", "-p", "-b", "through one port")
	if got := sites[1].do(t, "amqp-get", "-u", url, "-q", "interop"); got != "through one port" {
		t.Errorf("consumed %q", got)
	}
	sites[0].joined(t, "rabbit", door.Raw, "splice")

	sites[2].do(t, "rabbitmqctl", "stop")
	startRabbit(t, sites[2])
	wantCluster(t, sites)
	sites[0].do(t, "amqp-publish", "-u", url, "-r", "interop", "-p", "-b", "and again")
	if got := sites[2].do(t, "amqp-get", "-u", url, "-q", "interop"); got != "and again" {
		t.Errorf("consumed %q after the restart", got)
	}
}

func startRabbit(t *testing.T, s *site) {
	t.Helper()
	s.Start(t, s.command(context.Background(), "rabbitmq-server"))
	eventually(t, "the start of RabbitMQ on "+s.Name, func() bool {
		_, err := s.try(t, "rabbitmqctl", "await_startup", "--timeout", "30")
		return err == nil
	})
}

// wantCluster checks that every node says the same: all run, nothing is amiss.
func wantCluster(t *testing.T, sites []*site) {
	t.Helper()
	for _, s := range sites {
		eventually(t, "a clean cluster status", func() bool {
			output, err := s.try(t, "rabbitmqctl", "-q", "cluster_status", "--formatter", "json")
			if err != nil {
				return false
			}
			var status struct {
				RunningNodes []string            `json:"running_nodes"`
				DiskNodes    []string            `json:"disk_nodes"`
				Partitions   map[string][]string `json:"partitions"`
				Alarms       []any               `json:"alarms"`
			}
			if err := json.Unmarshal([]byte(output), &status); err != nil {
				t.Fatalf("cluster_status: %v in\n%s", err, output)
			}
			return len(status.RunningNodes) == len(sites) && len(status.DiskNodes) == len(sites) &&
				len(status.Partitions) == 0 && len(status.Alarms) == 0
		})
	}
}

func testEjabberd(t *testing.T, sites []*site) {
	ctl := func(s *site, args ...string) []string {
		return append([]string{"ejabberdctl", "--node", "ejabberd@" + s.Name}, args...)
	}
	for _, s := range sites {
		s.write(t, "ejabberd", "/var/lib/ejabberd/.erlang.cookie", "INTEROP")
		s.do(t, "install", "-d", "-o", "ejabberd", "/run/ejabberd") // as the unit file of systemd does
		s.Start(t, s.command(context.Background(), ctl(s, "foreground")...))
		eventually(t, "the start of ejabberd on "+s.Name, func() bool {
			_, err := s.try(t, ctl(s, "status")...)
			return err == nil
		})
	}
	alpha, beta := sites[0], sites[1]
	beta.do(t, ctl(beta, "join_cluster", "ejabberd@alpha")...)
	for _, s := range sites {
		eventually(t, "the cluster as "+s.Name+" sees it", func() bool {
			list, err := s.try(t, ctl(s, "list_cluster")...)
			return err == nil && strings.Contains(list, "ejabberd@alpha") && strings.Contains(list, "ejabberd@beta")
		})
	}
	alpha.do(t, ctl(alpha, "register", "romeo", "localhost", "secret")...)
	eventually(t, "the account on the other node", func() bool {
		_, err := beta.try(t, ctl(beta, "check_password", "romeo", "localhost", "secret")...)
		return err == nil
	})
	if output, err := beta.try(t, ctl(beta, "check_password", "romeo", "localhost", "wrong")...); err == nil {
		t.Errorf("a wrong password is right: %s", output)
	}
	alpha.joined(t, "ejabberd", door.Raw, "splice")
}

func testMnesia(t *testing.T, sites []*site) {
	start := func(s *site, name string) *hosts.Node {
		dir := filepath.Join(s.Dir, "mnesia")
		return s.Erl(t, name, hosts.In(s.root), hosts.Args("-mnesia", "dir", fmt.Sprintf("%q", dir)))
	}
	a, b := start(sites[0], "a"), start(sites[1], "b")
	if got := a.Eval(t, fmt.Sprintf(`Nodes = [node(), '%s'], pong = net_adm:ping(lists:last(Nodes)),
		ok = mnesia:create_schema(Nodes),
		{[ok, ok], []} = rpc:multicall(Nodes, mnesia, start, []),
		{atomic, ok} = mnesia:create_table(t, [{disc_copies, Nodes}]),
		mnesia:transaction(fun() -> [mnesia:write({t, N, node()}) || N <- lists:seq(1, 1000)], ok end)`, b.Name)); got != "{atomic,ok}" {
		t.Fatalf("the table: %s", got)
	}
	count := "ok = mnesia:wait_for_tables([t], 30000), mnesia:table_info(t, size)"
	if got := b.Eval(t, count); got != "1000" {
		t.Errorf("the other node has %s records", got)
	}
	if got := b.Eval(t, "mnesia:transaction(fun() -> mnesia:write({t, 1001, node()}) end)"); got != "{atomic,ok}" {
		t.Errorf("a transaction on the other node: %s", got)
	}
	sites[1].joined(t, "b", door.Raw, "splice")
	b.Kill()
	eventually(t, "the end of a node", func() bool { return a.Eval(t, "nodes()") == "[]" })
	if got := a.Eval(t, "mnesia:transaction(fun() -> mnesia:write({t, 1002, node()}) end)"); got != "{atomic,ok}" {
		t.Errorf("a transaction without the other node: %s", got)
	}
	b = start(sites[1], "b")
	if got := b.Eval(t, "ok = mnesia:start(), "+count); got != "1002" {
		t.Errorf("the node that was killed has %s records", got)
	}
	if got := b.Eval(t, "length(mnesia:system_info(running_db_nodes))"); got != "2" {
		t.Errorf("%s nodes run Mnesia", got)
	}
}

// testRelease runs the machine's own Elixir, which the release takes along.
func testRelease(t *testing.T, sites []*site) {
	out := t.TempDir()
	project, err := filepath.Abs(filepath.Join("testdata", "pair"))
	if err != nil {
		t.Fatal(err)
	}
	rebar, err := exec.LookPath("rebar3")
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("mix", "release", "--quiet", "--path", filepath.Join(out, "release"))
	build.Dir = project
	build.Env = append(os.Environ(), "HOME="+out, "MIX_ENV=prod", "MIX_BUILD_PATH="+filepath.Join(out, "build"), "MIX_REBAR3="+rebar)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("mix release: %v\n%s", err, output)
	}
	program := filepath.Join(out, "release", "bin", "pair")
	release := func(ctx context.Context, s *site, args ...string) *exec.Cmd {
		command := s.Command(ctx, program, args...)
		command.Env = append(os.Environ(), "HOME="+s.Dir, "RELEASE_TMP="+filepath.Join(s.Dir, "tmp"), "RELEASE_COOKIE=interop",
			"RELEASE_DISTRIBUTION=name", "RELEASE_NODE=pair@"+s.IPv4.String(), "ERL_FLAGS=-oneport node_socket="+s.daemon.node)
		return command
	}
	for _, s := range sites {
		s.Start(t, release(context.Background(), s, "start"))
	}
	for _, s := range sites {
		s.daemon.WaitOutput(t, `"msg":"receiver connected","node":"pair"`)
	}
	for i, s := range sites {
		other := sites[1-i]
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		output, err := release(ctx, s, "rpc", fmt.Sprintf(`IO.puts(:rpc.call(:"pair@%s", Pair, :who, []))`, other.IPv4)).CombinedOutput()
		if want := "I am pair@" + other.IPv4.String(); err != nil || !strings.Contains(string(output), want) {
			t.Errorf("a call: %v, want %q in\n%s", err, want, output)
		}
	}
	sites[1].joined(t, "pair", door.Upgrade, "handover")
}

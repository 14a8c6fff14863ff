package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oneport/door"
	"oneport/internal/hosts"
)

// Nodes that are not erl: erl_call, a program in C, Elixir.

func TestErlCallReachesANodeThroughTheDoor(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	serve(t, made[1])
	b := made[1].Erl(t, "b")
	if got := erlCall(t, made[0], b.Eval(t, "erlang:get_cookie()"), "-name", b.Name); got != "'"+b.Name+"'" {
		t.Errorf("erl_call says %s", got)
	}
}

// erlCall has erl_call ask a node for its name. How it finds the node is the
// caller's to say.
func erlCall(t *testing.T, from *hosts.Host, cookie string, target ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := append(target, "-c", strings.Trim(cookie, "'"), "-r", "-timeout", "20", "-a", "erlang node []")
	output, err := from.Command(ctx, "erl_call", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("erl_call %v: %v\n%s", target, err, output)
	}
	return strings.TrimSpace(string(output))
}

func TestProgramInCIsANode(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atBeta := serve(t, beta)
	serve(t, alpha)
	binary := filepath.Join(t.TempDir(), "cnode")
	if output, err := exec.Command("cc", "-o", binary, "testdata/cnode.c", "-I/usr/lib/erlang/usr/include", "-L/usr/lib/erlang/usr/lib", "-lei", "-pthread").CombinedOutput(); err != nil {
		t.Fatalf("compiling the C node: %v\n%s", err, output)
	}
	var stock, withCarrier *hosts.Node
	together(t,
		func() { stock = alpha.Erl(t, "stock", alone()) },
		func() { withCarrier = alpha.Erl(t, "carrier", alone(), carrier()) },
	)
	cookie := strings.Trim(stock.Eval(t, "erlang:get_cookie()"), "'")
	for _, node := range []*hosts.Node{stock, withCarrier} {
		cnode := beta.Start(t, beta.Command(context.Background(), binary, beta.IPv4.String(), beta.IPv4.String(), cookie))
		cnode.WaitOutput(t, "registered")
		got := node.Eval(t, "{any, 'c@"+beta.IPv4.String()+"'} ! {self(), [1, \"two\"]}, receive Answer -> Answer after 20000 -> silence end")
		if want := `{cnode,[1,"two"]}`; got != want {
			t.Errorf("%s is answered %s, want %s", node.Name, got, want)
		}
		if n := len(atBeta.connections(t)); n != 1 {
			t.Errorf("%d connections are at the door", n)
		}
		// It ends with its only connection, and its name with it.
		node.Eval(t, "erlang:disconnect_node('c@"+beta.IPv4.String()+"')")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := cnode.Wait(ctx); err != nil {
			t.Errorf("the C node: %v", err)
		}
		cancel()
		eventually(t, "the end of the C node's name", func() bool { return len(atBeta.nodes(t)) == 0 })
	}
}

func TestElixirNodes(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha, atBeta := serve(t, alpha), serve(t, beta)
	b := beta.Erl(t, "b", alone())
	cookie := strings.Trim(b.Eval(t, "erlang:get_cookie()"), "'")
	for _, test := range []struct {
		name, erl string
		protocol  door.Protocol
	}{
		{"stock", "-start_epmd false -connect_all false", door.Raw},
		{"carrier", "-start_epmd false -connect_all false -proto_dist oneport -pa " + beams + " -oneport node_socket=" + atAlpha.node, door.Upgrade},
	} {
		t.Run(test.name, func(t *testing.T) {
			command := alpha.Command(context.Background(), "elixir", "--name", "x@"+alpha.IPv4.String(), "--cookie", cookie,
				"--erl", test.erl, "--no-halt", "-e", `IO.puts("ping says #{Node.ping(:"`+b.Name+`")}")`)
			command.Env = append(os.Environ(), "HOME="+alpha.Dir)
			elixir := alpha.Start(t, command)
			elixir.WaitOutput(t, "ping says ")
			if !strings.Contains(elixir.Output(), "ping says pong") {
				t.Fatal("there is no way to Erlang")
			}
			if c := atBeta.oneConnection(t, "b"); c.Protocol != test.protocol {
				t.Errorf("it has come by %s, want %s", c.Protocol, test.protocol)
			}
			b.Eval(t, "erlang:disconnect_node('x@"+alpha.IPv4.String()+"')")
			atBeta.noConnections(t)
			if test.protocol == door.Upgrade { // it takes connections by descriptor only
				eventually(t, "the receiver of x", func() bool {
					return strings.Contains(atAlpha.Output(), `"msg":"receiver connected","node":"x"`)
				})
			}
			if got := ping(t, b, "x@"+alpha.IPv4.String()); got != "pong" {
				t.Errorf("the way back: %s", got)
			}
			elixir.Kill()
			eventually(t, "the end of a node", func() bool { return b.Eval(t, "nodes(connected)") == "[]" })
		})
	}
}

// A release that `mix release` builds has the carrier on board.
func TestElixirRelease(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	atBeta := serve(t, beta)
	b := beta.Erl(t, "b")
	script, err := filepath.Abs(filepath.Join(root, "erlang", "test", "mix_release.sh"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	command := alpha.Command(ctx, script, "4369", b.Name)
	command.Env = append(os.Environ(),
		"COOKIE="+strings.Trim(b.Eval(t, "erlang:get_cookie()"), "'"),
		"RELEASE_NODE=caller@"+alpha.IPv4.String())
	output, err := command.CombinedOutput()
	if want := "caller@" + alpha.IPv4.String() + " pinged " + b.Name + ": pong"; err != nil || !strings.Contains(string(output), want) {
		t.Fatalf("the release: %v, want %q in\n%s", err, want, output)
	}
	eventually(t, "the record of an upgrade", func() bool { return atBeta.status(t).Protocols[door.Upgrade] > 0 })
}

// A release that `mix release` builds, which boots in embedded mode, takes its
// connections by descriptor: with the carrier, and as an inet_tcp node that has
// the application among its own.
func TestElixirReleaseReceives(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha := serve(t, alpha)
	serve(t, beta)
	b := beta.Erl(t, "b", alone())
	script, err := filepath.Abs(filepath.Join(root, "erlang", "test", "mix_release.sh"))
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(alpha.Dir, "vm.args")
	if err := os.WriteFile(plain, []byte("-start_epmd false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, release := range []struct {
		name string
		env  []string
		runs string // its mode and carrier
	}{
		{"carrier", nil, `{embedded,{ok,[["oneport"]]}}`},
		{"plain", []string{"RELEASE_VM_ARGS=" + plain}, "{embedded,error}"},
	} {
		t.Run(release.name, func(t *testing.T) {
			node := release.name + "@" + alpha.IPv4.String()
			command := alpha.Command(context.Background(), script, "4369")
			command.Env = append(append(os.Environ(),
				"COOKIE="+strings.Trim(b.Eval(t, "erlang:get_cookie()"), "'"),
				"RELEASE_NODE="+node,
				"ERL_AFLAGS=-oneport node_socket="+atAlpha.node), release.env...)
			running := alpha.Start(t, command)
			eventually(t, "the release's receiver", func() bool {
				select {
				case <-running.Done():
					t.Fatalf("the release has ended:\n%s", running.Output())
				default:
				}
				return strings.Contains(atAlpha.Output(), `"msg":"receiver connected","node":"`+release.name+`"`)
			})
			if got := ping(t, b, node); got != "pong" {
				t.Fatalf("the release answers %s:\n%s", got, running.Output())
			}
			atAlpha.handedOver(t, release.name)
			got := b.Eval(t, "{rpc:call('"+node+"', code, get_mode, []), rpc:call('"+node+"', init, get_argument, [proto_dist])}")
			if got != release.runs {
				t.Errorf("the release runs as %s, want %s", got, release.runs)
			}
			b.Eval(t, "rpc:call('"+node+"', init, stop, [])")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := running.Wait(ctx); err != nil {
				t.Errorf("the release's end: %v in\n%s", err, running.Output())
			}
			atAlpha.noConnections(t)
		})
	}
}

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"oneport/internal/hosts"
)

// inner makes a node go by the name of a host that nobody else knows.
const inner = "inner.invalid"

// aliasClient makes a node that has the carrier and its application's modules.
func aliasClient(d *daemon, more ...string) hosts.Option {
	return receiving(d, append([]string{"-proto_dist", "oneport"}, more...)...)
}

// connectAs is what oneport:connect/1 returns in a node.
func connectAs(t *testing.T, from *hosts.Node, name string) string {
	t.Helper()
	return from.Eval(t, "oneport:connect('"+name+"')")
}

// reason is what oneport:connect/1 says, in words, of why it fails.
func reason(t *testing.T, from *hosts.Node, name string) string {
	t.Helper()
	return from.Eval(t, "{error, Why} = oneport:connect('"+name+"'), unicode:characters_to_list(oneport:format_error(Why))")
}

// wantReason fails the test unless the reason says all of these.
func wantReason(t *testing.T, from *hosts.Node, name string, says ...string) {
	t.Helper()
	got := reason(t, from, name)
	for _, text := range says {
		if !strings.Contains(strings.ReplaceAll(got, `\"`, `"`), text) {
			t.Errorf("connecting to %s: %s; want %q in it", name, got, text)
		}
	}
}

// A node that goes by a name which its users cannot resolve is connected to by
// the name of its door, under its own name, and again by itself.
func TestNodesAreConnectedToByTheNameOfTheirDoor(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha, d := serve(t, alpha), serve(t, beta, "--alias", "www=web", "--host", "public.example")
	var stock, bare, upgrade, handover *hosts.Node
	together(t,
		func() { stock = beta.Erl(t, "web", hosts.LongName(inner), alone()) },
		func() { bare = beta.Erl(t, "bare", hosts.LongName(inner), withoutListener(d)) },
		func() { upgrade = alpha.Erl(t, "a", aliasClient(atAlpha)) },
		func() { handover = alpha.Erl(t, "h", aliasClient(atAlpha, "-oneport", "method=handover")) },
	)
	d.ready(t, bare)
	stock.Eval(t, `Asker = self(), spawn(fun() ->
		true = register(listener, self()),
		ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
		Asker ! listening,
		(fun F(L) -> receive {tell, Whom} -> Whom ! {heard, lists:usort(L)}; {_, N, _} -> F([N | L]) end end)([])
	end), receive listening -> ok end`)
	for _, from := range []*hosts.Node{upgrade, handover} {
		t.Run(from.Name, func(t *testing.T) {
			if got := ping(t, from, stock.Name); got != "pang" {
				t.Fatalf("%s is reached without its door's name: %s", stock.Name, got)
			}
			for asked, true := range map[string]*hosts.Node{"web@" + beta.FQDN: stock, "www@" + beta.FQDN: stock, "bare@" + beta.FQDN: bare} {
				if got, want := connectAs(t, from, asked), "{ok,'"+true.Name+"'}"; got != want {
					t.Fatalf("connecting to %s: %s, want %s", asked, got, want)
				}
				if got := from.Eval(t, "erpc:call('"+true.Name+"', erlang, node, [])"); got != "'"+true.Name+"'" {
					t.Errorf("%s calls itself %s", true.Name, got)
				}
			}
			for _, node := range []*hosts.Node{stock, bare} {
				disconnect(t, from, node)
				wantPong(t, from, node) // as the runtime does by itself
			}
			if got, want := from.Eval(t, "oneport:doors()"), fmt.Sprintf("[{%q,{%q,%d}}]", inner, beta.FQDN, hosts.Port); got != want {
				t.Errorf("remembered: %s, want %s", got, want)
			}
			disconnect(t, from, stock)
			from.Eval(t, fmt.Sprintf("oneport:forget(%q)", inner))
			if got := ping(t, from, stock.Name); got != "pang" {
				t.Errorf("%s is reached by a way that was forgotten: %s", stock.Name, got)
			}
		})
	}
	t.Run("without the carrier", func(t *testing.T) {
		plain := alpha.Erl(t, "plain", alone(), hosts.CodePath(beams))
		wantReason(t, plain, "web@"+beta.FQDN, "start it with -proto_dist oneport")
		if got := plain.Eval(t, "oneport:who('web@"+beta.FQDN+"')"); got != "{ok,'"+stock.Name+"'}" {
			t.Errorf("asking for the name needs no carrier: %s", got)
		}
	})
	t.Run("by another name of the door's host", func(t *testing.T) {
		got := upgrade.Eval(t, fmt.Sprintf("oneport:who('web@public.example', #{door => {%q, %d}})", beta.IPv4, hosts.Port))
		if got != "{ok,'"+stock.Name+"'}" {
			t.Error(got)
		}
	})
	t.Run("the asking is not noticed", func(t *testing.T) {
		heard := stock.Eval(t, "listener ! {tell, self()}, receive {heard, Nodes} -> Nodes end")
		if want := fmt.Sprintf("['%s','%s']", upgrade.Name, handover.Name); heard != want || strings.Contains(stock.Output(), "oneport") {
			t.Errorf("the node has heard of %s, want %s, and wrote\n%s", heard, want, stock.Output())
		}
	})
}

// The same over IPv6.
func TestNodesAreConnectedToByTheNameOfTheirDoorOverIPv6(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha, d := serve(t, alpha), serve(t, beta)
	var bare, a *hosts.Node
	together(t,
		func() { bare = beta.Erl(t, "bare", hosts.LongName(inner), receiving(d, "-proto_dist", "oneport6")) },
		func() {
			a = alpha.Erl(t, "a", hosts.LongName(alpha.FQDN), receiving(atAlpha, "-proto_dist", "oneport6"))
		},
	)
	d.ready(t, bare)
	if got := connectAs(t, a, "bare@"+beta.FQDN); got != "{ok,'"+bare.Name+"'}" {
		t.Fatal(got)
	}
	if one := d.handedOver(t, "bare"); !strings.HasPrefix(one.Peer, "["+alpha.IPv6.String()+"]:") {
		t.Errorf("%+v", one)
	}
	disconnect(t, a, bare)
	wantPong(t, a, bare)
}

// Aliases come and go at run time; what does not lead to a node says why.
func TestAliasesAreAddedAndRemoved(t *testing.T) {
	made := hosts.New(t, "alpha", "beta", "gamma", "delta")
	alpha, beta, gamma, delta := made[0], made[1], made[2], made[3]
	atAlpha, d := serve(t, alpha, "--forward", beta.FQDN), serve(t, beta)
	serve(t, gamma)
	var web, other, a *hosts.Node
	together(t,
		func() { web = beta.Erl(t, "web", hosts.LongName(inner), alone()) },
		func() { other = gamma.Erl(t, "other", hosts.LongName(inner), alone()) },
		func() { a = alpha.Erl(t, "a", aliasClient(atAlpha)) },
	)
	api := "api@" + beta.FQDN
	wantReason(t, a, api, "answered 404", `no node "api" is registered here`)
	for _, args := range [][]string{{"add", "api", "web"}, {"add", "full", web.Name}} {
		if out, err := d.command(t, append([]string{"alias"}, args...)...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	for _, alias := range []string{"api", "full"} {
		if got := connectAs(t, a, alias+"@"+beta.FQDN); got != "{ok,'"+web.Name+"'}" {
			t.Fatalf("connecting to %s: %s", alias, got)
		}
	}
	if c := d.oneConnection(t, "web"); c.Node != "web" {
		t.Errorf("%+v", c)
	}
	t.Run("another host that calls itself the same", func(t *testing.T) {
		wantReason(t, a, "other@"+gamma.FQDN, "calls its host "+inner, "are reached by "+beta.FQDN)
		if got := a.Eval(t, "oneport:doors()"); !strings.Contains(got, beta.FQDN) || strings.Contains(got, gamma.FQDN) {
			t.Errorf("remembered: %s", got)
		}
		disconnect(t, a, web)
		a.Eval(t, fmt.Sprintf("oneport:forget(%q)", inner))
		if got := connectAs(t, a, "other@"+gamma.FQDN); got != "{ok,'"+other.Name+"'}" {
			t.Error(got)
		}
	})
	t.Run("through a door in front", func(t *testing.T) {
		got := a.Eval(t, fmt.Sprintf("oneport:who('api@%s', #{door => {%q, %d}})", beta.FQDN, alpha.IPv4, hosts.Port))
		if got != "{ok,'"+web.Name+"'}" {
			t.Error(got)
		}
	})
	t.Run("a removed alias", func(t *testing.T) {
		if out, err := d.command(t, "alias", "remove", "api"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		wantReason(t, a, api, "answered 404", `no node "api" is registered here`)
	})
	t.Run("a name that the door's host does not have", func(t *testing.T) {
		got := a.Eval(t, fmt.Sprintf(`{error, {door, _, Why}} = oneport:connect('web@public.example', #{door => {%q, %d}}), Why`, beta.IPv4, hosts.Port))
		if !strings.Contains(got, "{refused,421,") || !strings.Contains(got, "see --host") {
			t.Error(got)
		}
	})
	t.Run("a node with a short name", func(t *testing.T) {
		beta.Erl(t, "short", hosts.ShortName(), alone())
		wantReason(t, a, "short@"+beta.FQDN, "short@beta, a short name", "long names")
	})
	t.Run("a source that is not allowed", func(t *testing.T) {
		serve(t, delta, "--allow", beta.IPv4.String())
		wantReason(t, a, "web@"+delta.FQDN, "answered 403", "see --allow")
	})
	t.Run("a host without a door", func(t *testing.T) {
		got := a.Eval(t, fmt.Sprintf(`{error, {door, _, Why}} = oneport:who('web@x', #{door => {%q, 4368}}), Why`, alpha.IPv4))
		if got != "{connect,econnrefused}" {
			t.Error(got)
		}
	})
}

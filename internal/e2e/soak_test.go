package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"oneport/internal/hosts"
)

// Over a pair and over a relay that is paired, calls, messages of all sizes and
// long binaries go on for as long as ONEPORT_SOAK says, with sums made on the side
// that sends, while the pairs come and go.
//
//	ONEPORT_SOAK=10m go test -timeout 30m -run Soak -v ./internal/e2e
func TestShortcutSoak(t *testing.T) {
	setting := os.Getenv("ONEPORT_SOAK")
	if setting == "" {
		t.Skip("set ONEPORT_SOAK to a duration, as in 10m")
	}
	lasts, err := time.ParseDuration(setting)
	if err != nil {
		t.Fatal(err)
	}
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta, short(t, beta, "auto")...)
	var a, through, direct *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { through = beta.Erl(t, "through", alone()) },
		func() { direct = beta.Erl(t, "direct", withApplication(d)) },
	)
	d.ready(t, direct)
	nodes := []*hosts.Node{through, direct}
	for _, b := range nodes {
		wantPong(t, a, b)
		d.settle(t, a, b, map[*hosts.Node]string{through: "through", direct: "direct"}[b])
		// Each process makes calls of its own size, a thousand times longer ones
		// now and then, both ways, with the sum of what was sent.
		a.Eval(t, fmt.Sprintf(`
			Answer = fun(There, N) -> Back = rand:bytes(N), {erlang:md5(There), Back, erlang:md5(Back)} end,
			Work = fun Work(Size, Done) ->
				receive {stop, Whom} -> Whom ! {done, Done} after 0 ->
					N = case Done rem 100 of 99 -> 1000 * Size; _ -> rand:uniform(Size) end,
					There = rand:bytes(N),
					{Arrived, Back, Sent} = erpc:call('%[1]s', erlang, apply, [Answer, [There, N]], 60000),
					true = Arrived =:= erlang:md5(There) andalso Sent =:= erlang:md5(Back),
					Work(Size, Done + 1)
				end
			end,
			register('soak %[1]s', spawn(fun() ->
				Workers = [spawn_link(fun() -> Work(Size, 0) end) || Size <- [1, 10, 100, 1000, 10000, 50000]],
				receive {stop, Whom} ->
					[W ! {stop, self()} || W <- Workers],
					Whom ! {calls, lists:sum([receive {done, N} -> N end || _ <- Workers])}
				end
			end))`, b.Name))
	}
	time.Sleep(lasts) // the test is its length
	for _, b := range nodes {
		calls := a.Eval(t, fmt.Sprintf(`case whereis('soak %[1]s') of
			undefined -> broken;
			Soak -> Soak ! {stop, self()}, receive {calls, N} -> N end end`, b.Name))
		if calls == "broken" {
			t.Errorf("%s: a call failed, or a sum was wrong", b.Name)
		}
		t.Logf("%s: %s calls", b.Name, calls)
	}
	for _, c := range d.connections(t) {
		t.Logf("%s: %s, %d bytes to the node, %d to the client: %+v", c.Node, c.Path, c.BytesToNode, c.BytesToClient, *c.Shortcut)
	}
}

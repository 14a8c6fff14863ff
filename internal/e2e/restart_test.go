package e2e

import (
	"testing"

	"oneport/internal/hosts"
)

// A node that is killed and started again at once gets its name, and is found.
func TestKilledNodeComesBackUnderItsName(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	serve(t, beta)
	for _, option := range []struct {
		name string
		hosts.Option
	}{{"stock", alone()}, {"carrier", carrier()}} {
		t.Run(option.name, func(t *testing.T) {
			var a, b *hosts.Node
			together(t,
				func() { a = alpha.Erl(t, "a", option.Option) },
				func() { b = beta.Erl(t, "b", option.Option) },
			)
			for range 3 {
				wantPong(t, a, b)
				gone := watch(t, a, b)
				b.Kill()
				b = beta.Erl(t, "b", option.Option) // does not start unless it can register
				gone(t)
			}
			wantPong(t, a, b)
			disconnect(t, a, b)
			wantPong(t, b, a)
		})
	}
}

// A daemon that ends, however that comes, takes its connections along, and both
// sides see that. Its nodes live on, register with the next daemon by
// themselves, and are connected again by whoever wants to.
func TestNodesOutliveTheDaemon(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta)
	var a, stock, withCarrier, idle *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { stock = beta.Erl(t, "stock", alone()) },
		func() { withCarrier = beta.Erl(t, "carrier", alone(), carrier()) },
		func() { idle = beta.Erl(t, "idle", alone(), hosts.Hidden()) },
	)
	whole := t // what a subtest starts ends with it, but the daemon is to stay
	for _, end := range []struct {
		name string
		end  func(t *testing.T)
	}{
		{"SIGKILL", func(*testing.T) { d.Kill() }},
		{"SIGTERM", func(t *testing.T) { stop(t, d.Process) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			var gone []func(*testing.T)
			for _, b := range []*hosts.Node{stock, withCarrier} {
				wantPong(t, a, b)
				gone = append(gone, watch(t, a, b), watch(t, b, a))
			}
			end.end(t)
			for _, gone := range gone {
				gone(t)
			}
			d.start(whole)
			eventually(t, "the nodes to register again", func() bool { return len(d.nodes(t)) == 3 })
			for _, b := range []*hosts.Node{stock, withCarrier, idle} {
				wantPong(t, a, b)
				disconnect(t, a, b)
				wantPong(t, b, a)
				disconnect(t, a, b)
			}
		})
	}
}

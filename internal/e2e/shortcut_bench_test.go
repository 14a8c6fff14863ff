package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"oneport/internal/hosts"
)

// BenchmarkShortcut compares real nodes in network namespaces of one host that
// are paired with the same that are not: over the relay (through), after a
// handover (direct), and with a client that cannot be seen (outward), over a
// limited link as well; and the first two with both nodes in one namespace. The same work is done with both in
// turns. ratio is that of a round, paired by unpaired: of the speeds, of the medians of calls, and of the CPU time that
// the nodes and the daemon used.
//
//	go test -run '^$' -bench Shortcut -benchtime 1x ./internal/e2e
//
// ONEPORT_SHORTCUT is the mode, if not auto; in one namespace it is all.
func BenchmarkShortcut(b *testing.B) {
	const rounds = 7
	mode := os.Getenv("ONEPORT_SHORTCUT")
	if mode == "" {
		mode = "auto"
	}
	code := b.TempDir()
	source := filepath.Join("testdata", "shortcut_bench.erl")
	if out, err := exec.Command("erlc", "-Wall", "-Werror", "-o", code, source).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for _, v := range []struct {
		name     string
		taking   bool // the nodes take descriptors
		disguise bool // the client cannot be seen
		alone    bool // client and node are in one namespace
		limited  bool // to 300 MB/s, from the node to the client
	}{
		{name: "through"},
		{name: "direct", taking: true},
		{name: "outward", disguise: true},
		{name: "outward-limited", disguise: true, limited: true},
		{name: "loopback-through", alone: true},
		{name: "loopback-direct", alone: true, taking: true},
	} {
		b.Run(v.name, func(b *testing.B) {
			made := hosts.New(b, "alpha", "beta", "gamma")
			alpha := made[0]
			if v.disguise {
				disguise(b, alpha)
			}
			mode := mode
			if v.alone {
				mode = "all"
			}
			var daemons [2]*daemon
			var clients, nodes [2]*hosts.Node
			serve(b, alpha)
			for k, flags := range [][]string{short(b, made[1], mode), nil} {
				h := made[1+k]
				daemons[k] = serve(b, h, flags...)
				if v.limited {
					limit := h.Command(b.Context(), "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "2400mbit", "burst", "1mb", "latency", "50ms")
					if out, err := limit.CombinedOutput(); err != nil {
						b.Fatalf("%v\n%s", err, out)
					}
				}
				options := []hosts.Option{alone(), hosts.CodePath(code)}
				switch {
				case v.alone:
					clients[k] = h.Erl(b, "a", append(options, carrier())...)
				case k == 0:
					clients[k] = alpha.Erl(b, "a", options...)
				default:
					clients[k] = clients[0]
				}
				if v.taking {
					options = append(options, withApplication(daemons[k]))
				}
				nodes[k] = h.Erl(b, "b", options...)
				if v.taking {
					daemons[k].ready(b, nodes[k])
				}
				wantPong(b, clients[k], nodes[k])
			}
			daemons[0].settle(b, clients[0], nodes[0], "b")

			works := []string{"calls", "callers", "megabytes", "burst", "flood", "bulk", "fetch"}
			took, used := map[string]*[2][]float64{}, map[string]*[2][]float64{}
			for _, work := range works {
				took[work], used[work] = new([2][]float64), new([2][]float64)
			}
			for round := -1; round < rounds; round++ { // the first is to get warm
				for _, work := range works {
					for _, k := range rand.Perm(2) {
						pids := []int{clients[k].Pid(), nodes[k].Pid(), daemons[k].Pid()}
						before := cpu(b, pids)
						nanos, err := strconv.Atoi(clients[k].Eval(b, fmt.Sprintf("shortcut_bench:work(%s, '%s')", work, nodes[k].Name)))
						if err != nil {
							b.Fatal(err)
						}
						spent := cpu(b, pids) - before
						if round >= 0 {
							took[work][k] = append(took[work][k], float64(nanos))
							used[work][k] = append(used[work][k], spent)
						}
					}
				}
				if c := daemons[0].oneConnectionTo(b, "b"); round == rounds-1 {
					share, _ := c.Shortcut.Share()
					b.Logf("%s, %.0f %% short: %s %+v", c.Path, 100*share, c.Why, *c.Shortcut)
				}
			}
			b.ReportMetric(0, "ns/op")
			for _, work := range works {
				var speed, spent []float64
				for round := range rounds {
					ratio := took[work][1][round] / took[work][0][round]
					if work == "calls" {
						ratio = 1 / ratio
					}
					speed = append(speed, ratio)
					spent = append(spent, used[work][0][round]/used[work][1][round])
				}
				slices.Sort(took[work][0])
				b.ReportMetric(quantile(took[work][0], 0.5)/1e3, work+"-us")
				reportQuartiles(b, work+"-ratio", speed)
				slices.Sort(spent)
				b.ReportMetric(quantile(spent, 0.5), work+"-cpu-ratio")
			}
		})
	}
}

// cpu returns the seconds that processes have run for, to the nanosecond.
func cpu(t testing.TB, pids []int) (seconds float64) {
	t.Helper()
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(files) == 0 {
			t.Fatalf("no CPU time of process %d: %v", pid, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // a thread that has ended
			}
			nanos, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			seconds += nanos / 1e9
		}
	}
	return seconds
}

// reportQuartiles reports the median and the quartiles of what the rounds gave.
func reportQuartiles(b *testing.B, unit string, values []float64) {
	slices.Sort(values)
	b.ReportMetric(quantile(values, 0.5), unit)
	b.ReportMetric(quantile(values, 0.25), unit+"-q1")
	b.ReportMetric(quantile(values, 0.75), unit+"-q3")
}

// quantile is the nearest of sorted values.
func quantile[T any](sorted []T, q float64) T { return sorted[int(q*float64(len(sorted)-1)+0.5)] }

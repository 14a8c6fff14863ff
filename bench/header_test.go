package bench

import (
	"strings"
	"testing"
	"time"
)

func TestAHeaderComesBack(t *testing.T) {
	for _, h := range []header{
		{Kind: bulk, Direction: bothWays, Size: chunk, Count: 4 << 30, Seed: 1 << 63},
		{Kind: trips, Poll: true, Size: 4096, Count: 20_000, Seed: 7},
		{Kind: slow, Direction: toClient, Size: stride, Count: 1, Sleep: 5 * time.Second},
		{Kind: setUp},
		{Kind: hold},
	} {
		if got, err := parseHeader(h.bytes()); err != nil || got != h {
			t.Errorf("%+v becomes %+v, %v", h, got, err)
		}
	}
}

func TestWhatIsNoHeaderIsRefused(t *testing.T) {
	good := header{Kind: trips, Size: 64, Count: 1}.bytes()
	with := func(i int, b byte) []byte {
		bad := append([]byte(nil), good...)
		bad[i] = b
		return bad
	}
	for name, b := range map[string][]byte{
		"empty":                nil,
		"short":                good[:63],
		"long":                 append(good[:64:64], 0),
		"other words":          with(0, 'x'),
		"no kind":              with(16, 0),
		"unknown kind":         with(16, 99),
		"no message":           header{Kind: trips, Count: 1}.bytes(),
		"huge messages":        header{Kind: trips, Size: maxSize + 1, Count: 1}.bytes(),
		"no direction":         header{Kind: bulk, Size: chunk, Count: 1}.bytes(),
		"unknown direction":    header{Kind: bulk, Size: chunk, Count: 1, Direction: 4}.bytes(),
		"slow both ways":       header{Kind: slow, Size: chunk, Count: 1, Direction: bothWays}.bytes(),
		"sleep without an end": header{Kind: slow, Size: chunk, Count: 1, Direction: toNode, Sleep: time.Hour}.bytes(),
		"no pieces":            header{Kind: bulk, Count: 1, Direction: toNode}.bytes(),
		"odd pieces":           header{Kind: bulk, Size: 1000, Count: 1, Direction: toNode}.bytes(),
		"huge pieces":          header{Kind: bulk, Size: 2 * chunk, Count: 1, Direction: toNode}.bytes(),
	} {
		if h, err := parseHeader(b); err == nil {
			t.Errorf("%s is taken for %+v", name, h)
		}
	}
}

func TestAReportComesBack(t *testing.T) {
	for _, r := range []report{
		{ok: true, received: 1 << 40},
		{accepted: 5, fall: -7, why: "bytes were lost"},
	} {
		if got := parseReport(r.bytes()); got != r {
			t.Errorf("%+v becomes %+v", r, got)
		}
	}
	long := parseReport(report{why: strings.Repeat("x", 1000)}.bytes())
	if len(long.why) != maxWhy {
		t.Errorf("a long reason is cut to %d bytes", len(long.why))
	}
	broken := report{}.bytes()
	broken[25], broken[26] = 0xff, 0xff
	_ = parseReport(broken) // does not read past its end
}

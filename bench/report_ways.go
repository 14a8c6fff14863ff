package bench

import (
	"image/color"
	"slices"
	"strings"
)

// standing is what a way is to the reader of a report.
type standing int

const (
	asReference standing = iota // measured to compare with
	asOwn                       // what oneport does
	asPeer                      // what a user would take instead
	asWarning                   // measured to show why it is not done
)

// portrait is how a way is shown: in the same place and the same colour everywhere.
type portrait struct {
	way      string
	standing standing
	color    color.RGBA
	dashed   bool
}

// width of its curves: the baseline is broad, to be seen below one that equals it.
func (p portrait) width() float64 {
	if p.way == Sockets.Baseline() {
		return 5
	}
	return 2
}

// portraits are in the order of the tables. The colours are told apart with any kind
// of colour vision, by their lightness too; peers have dashed lines besides.
var portraits = []portrait{
	{"direct", asReference, rgb(0xb5b5b5), false},
	{control, asReference, rgb(0x8f8f8f), true},
	{"unix", asReference, rgb(0x4d4d4d), false},
	{"handover", asOwn, rgb(0x332288), false},
	{"shortcut-direct", asOwn, rgb(0x117733), false},
	{"shortcut-through", asOwn, rgb(0x44aa99), false},
	{"shortcut-outward", asOwn, rgb(0x88ccee), false},
	{"splice", asOwn, rgb(0xe69f00), false},
	{"copy", asOwn, rgb(0x8c6d46), false},
	{"haproxy", asPeer, rgb(0xcc3311), true},
	{"nginx", asPeer, rgb(0x882255), true},
	{"socat", asPeer, rgb(0x0077bb), true},
	{"beam", asPeer, rgb(0xaa4499), true},
	{"sk_skb", asWarning, rgb(0xd55e00), true},
	{"epmd", asPeer, rgb(0x111111), true},
	{"oneport", asOwn, rgb(0x332288), false},
	{"door", asOwn, rgb(0xe69f00), false},
}

func rgb(v uint32) color.RGBA {
	return color.RGBA{R: uint8(v >> 16), G: uint8(v >> 8), B: uint8(v), A: 0xff}
}

// portraitOf makes one up for a way that it does not know.
func portraitOf(way string) portrait {
	if i := rank(way); i < len(portraits) {
		return portraits[i]
	}
	p := portrait{way: way, standing: asReference, color: rgb(0x666666), dashed: true}
	if strings.HasPrefix(way, "shortcut") {
		p.standing, p.dashed, p.color = asOwn, false, rgb(0x44aa99)
	}
	return p
}

// rank is where a way stands in a table; those that are not known come last.
func rank(way string) int {
	i := slices.IndexFunc(portraits, func(p portrait) bool { return p.way == way })
	if i < 0 {
		return len(portraits)
	}
	return i
}

// sortWays puts ways in the order of the tables.
func sortWays(ways []string) {
	slices.SortStableFunc(ways, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}

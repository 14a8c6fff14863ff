package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// digits prints a number with three significant digits, and commas.
func digits(v float64) string {
	if !finite(v) {
		return "no number"
	}
	a := math.Abs(v)
	switch {
	case a == 0:
		return "0"
	case a >= 999.5:
		// What is rounded away is within the quartiles.
		step := math.Pow(10, math.Floor(math.Log10(a))-2)
		return commas(int64(math.Round(v/step) * step))
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a >= 0.0001:
		decimals := 2 - int(math.Floor(math.Log10(a)))
		return strconv.FormatFloat(v, 'f', decimals, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func commas(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// times prints a ratio, with two decimals where these tell something.
func times(v float64) string {
	if a := math.Abs(v); finite(v) && a >= 0.095 && a < 9.995 {
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return digits(v)
}

// inBytes prints bytes in binary units.
func inBytes(v float64) string {
	a, unit := math.Abs(v), ""
	for _, u := range []string{"KiB", "MiB", "GiB"} {
		if a < 1024 {
			break
		}
		a, v, unit = a/1024, v/1024, u
	}
	if unit == "" {
		return strconv.FormatFloat(v, 'f', 0, 64) + " B"
	}
	return digits(v) + " " + unit
}

// figureText prints a value of a point without its unit, but for bytes.
func figureText(p Point, v float64) string {
	if p.Unit == "B" && finite(v) {
		return inBytes(v)
	}
	return digits(v)
}

// unitText is a unit as people write it.
func unitText(unit string) string {
	switch unit {
	case "us":
		return "µs"
	case "1/s":
		return "per second"
	case "B":
		return "bytes"
	}
	return unit
}

// quartiles prints those of a spread, small.
func quartiles(s spread, print func(float64) string) string {
	return fmt.Sprintf("%s..%s", print(s.low), print(s.high))
}

// workText names a work by all that tells it from others of its group.
func workText(p Point) string {
	parts := []string{p.Work}
	if p.Size > 0 {
		parts[0] += " of " + sizeText(p.Size)
	}
	if p.Connections > 0 {
		parts = append(parts, counted(p.Connections, "connection"))
	}
	if p.Names > 0 {
		parts = append(parts, counted(p.Names, "name"))
	}
	return strings.Join(parts, ", ")
}

func sizeText(n int) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return tickText(float64(n), "B")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return commas(int64(n)) + " " + what + "s"
}

func betterText(p Point) string {
	if p.Lower {
		return "less is better"
	}
	return "more is better"
}

// layoutText says where client and node are.
func layoutText(l Layout) string {
	switch l {
	case Loopback:
		return "loopback"
	case Veth:
		return "two network namespaces"
	case "":
		return "any"
	}
	return string(l)
}

func groupText(g Group) string {
	switch g {
	case Sockets:
		return "Sockets"
	case Nodes:
		return "Erlang nodes"
	case EPMD:
		return "EPMD"
	case "":
		return "any"
	}
	return string(g)
}

package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDocument(t *testing.T) {
	dir, r := t.TempDir(), syntheticResult()
	pictures := filepath.Join(dir, "bench")
	if err := os.Mkdir(pictures, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bars-sockets-moon.svg", "summary.png", "notes.svg", "bars.txt"} {
		if err := os.WriteFile(filepath.Join(pictures, name), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Document(dir, r); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "BENCHMARKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range picturesOf(newIndex(r)) {
		want = append(want, p.name+".svg", p.name+".png")
		if !strings.Contains(string(page), "](bench/"+p.name+".svg)") {
			t.Errorf("the page does not show %s", p.name)
		}
	}
	if !slices.Contains(want, "summary.svg") || !slices.Contains(want, "bars-sockets-veth.png") ||
		!slices.Contains(want, "latency-sockets-loopback.svg") || !slices.Contains(want, "growth-names-veth.svg") {
		t.Errorf("some pictures are missing: %v", want)
	}
	// What others have put there stays; old pictures do not; nothing is left over.
	want = append(want, "result.json", "notes.svg", "bars.txt")
	slices.Sort(want)
	var got []string
	entries, err := os.ReadDir(pictures)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the files are %v, want %v", got, want)
	}
	f, err := os.Open(filepath.Join(pictures, "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if back, err := ReadJSON(f); err != nil || len(back.Series) != len(r.Series) {
		t.Errorf("the result cannot be read back: %v", err)
	}
}

// What was written before is there as long as the new is not whole.
func TestDocumentFailsBeforeThePage(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "BENCHMARKS.md")
	if err := os.WriteFile(page, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bench"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Document(dir, syntheticResult()); err == nil {
		t.Fatal("pictures were written into a file")
	}
	if data, err := os.ReadFile(page); err != nil || string(data) != "old" {
		t.Errorf("the page is %q, %v", data, err)
	}
}

func TestPicturesAreWhole(t *testing.T) {
	r := syntheticResult()
	for _, p := range picturesOf(newIndex(r)) {
		svg, err := p.svg()
		if err != nil {
			t.Fatal(err)
		}
		dec := xml.NewDecoder(bytes.NewReader(svg))
		for {
			if _, err = dec.Token(); err != nil {
				break
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s.svg is no XML: %v", p.name, err)
		}
		if p.name == "bars-sockets-veth" || p.name == "latency-sockets-veth" {
			for _, way := range syntheticWays() {
				// The baseline is the line of bars.
				if way != "direct" && !bytes.Contains(svg, []byte(">"+way)) {
					t.Errorf("%s is not in %s", way, p.name)
				}
			}
		}
		if !bytes.Contains(svg, []byte("Arial")) {
			t.Errorf("%s.svg has no other font to fall back on", p.name)
		}
	}
	p := picturesOf(newIndex(r))[0]
	data, err := p.png()
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if w := img.Bounds().Dx(); w != 2*sheetWidth {
		t.Errorf("the PNG is %d pixels wide, want %d", w, 2*sheetWidth)
	}
	if r, g, b, a := img.At(0, 0).RGBA(); r != 0xffff || g != 0xffff || b != 0xffff || a != 0xffff {
		t.Error("the background is not white, and would not be seen on a dark page")
	}
}

func TestTicks(t *testing.T) {
	for name, c := range map[string]struct {
		s    scale
		unit string
		want string
	}{
		"ratios":          {scale{0.4, 3, true}, "", "0.5 1 2"},
		"decades":         {scale{0.01, 200, true}, "", "0.01 0.1 1 10 100"},
		"many decades":    {scale{1, 1e9, true}, "", "1 100 10k 1M 100M"},
		"times":           {scale{8, 2500, true}, "us", "10 µs 30 µs 100 µs 300 µs 1 ms"},
		"from zero":       {scale{0, 52000, false}, "1/s", "0 10k 20k 30k 40k 50k"},
		"bytes from zero": {scale{0, 20 << 10, false}, "B", "0 B 5 KiB 10 KiB 15 KiB 20 KiB"},
		"bytes":           {scale{3000, 300 << 20, true}, "B", "4 KiB 32 KiB 256 KiB 2 MiB 16 MiB 128 MiB"},
	} {
		var got []string
		for _, v := range c.s.ticks(6, c.unit) {
			got = append(got, tickText(v, c.unit))
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	r := syntheticResult()
	r.Disturbances = make([]Disturbance, 1)
	r.Complete = false
	var b bytes.Buffer
	if err := WriteTable(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Sockets, loopback: ratio to direct", "Erlang nodes, two network namespaces", "EPMD, loopback: ratio to epmd", "shortcut-outward",
		"not measured: shortcut-direct (loopback, Erlang nodes): the pipe | in this reason is escaped", "mark missed:", "marks reached.",
		"during 1 turn something", "Ended early",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "splice") && len(line) > 130 {
			t.Errorf("a row is too wide for a terminal: %q", line)
		}
	}
}

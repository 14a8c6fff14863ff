package epmd

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"oneport/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// longName has as many characters as a name may have, and the most bytes.
var longName = strings.Repeat("\U0001f600", MaxName)

func TestRequestBytes(t *testing.T) {
	tests := []struct {
		name    string
		request Request
		bytes   string
	}{
		{
			"old node registers",
			AliveRequest{Node{Name: "b", Port: 0x9881, Type: Normal, Highest: 5, Lowest: 5}},
			"\x00\x0ex\x98\x81M\x00\x00\x05\x00\x05\x00\x01b\x00\x00",
		},
		{
			"hidden node with extra data registers",
			AliveRequest{Node{Name: "\u00fc", Port: 1, Type: Hidden, Protocol: 7, Highest: 6, Lowest: 5, Extra: []byte("A\x00\x00")}},
			"\x00\x12x\x00\x01H\x07\x00\x06\x00\x05\x00\x02\xc3\xbc\x00\x03A\x00\x00",
		},
		{"port", PortRequest{"foo"}, "\x00\x04zfoo"},
		{"names", NamesRequest{}, "\x00\x01n"},
		{"dump", DumpRequest{}, "\x00\x01d"},
		{"kill", KillRequest{}, "\x00\x01k"},
		{"stop", StopRequest{"foo"}, "\x00\x04sfoo"},
		{"handover", HandoverRequest{"b"}, "\x00\x02hb"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b, err := AppendRequest([]byte("before"), test.request)
			if err != nil {
				t.Fatal(err)
			}
			if want := "before" + test.bytes; string(b) != want {
				t.Errorf("encoded as %q, want %q", b, want)
			}
			// Byte by byte, and with the next protocol right behind it.
			r := iotest.OneByteReader(strings.NewReader(test.bytes + "next"))
			request, err := ReadRequest(r)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(request, test.request) {
				t.Errorf("decoded as %#v, want %#v", request, test.request)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "next" {
				t.Errorf("left %q unread, want %q", rest, "next")
			}
			for cut := range len(test.bytes) {
				_, err := ReadRequest(strings.NewReader(test.bytes[:cut]))
				want := io.ErrUnexpectedEOF
				if cut == 0 {
					want = io.EOF
				}
				if err != want {
					t.Errorf("cut after %d bytes: error %v, want %v", cut, err, want)
				}
			}
		})
	}
}

func TestParseRequestTakesWhatOldClientsSend(t *testing.T) {
	tests := []struct {
		payload string
		want    Request
	}{
		{"zfoo\x00", PortRequest{"foo"}},
		{"sfoo\x00", StopRequest{"foo"}},
		{"hb\x00", HandoverRequest{"b"}},
		{"nwhatever", NamesRequest{}},
		{"z" + longName, PortRequest{longName}},
		// What only the answer refuses: see TestRefusedRegistrations.
		{"x\x00\x01M\x00\x00\x05\x00\x05\x00\x01\xff\x00\x00", AliveRequest{Node{Name: "\xff", Port: 1, Type: Normal, Highest: 5, Lowest: 5}}},
		// Bytes behind the extra data.
		{"x\x00\x01M\x00\x00\x05\x00\x05\x00\x01b\x00\x00more", AliveRequest{Node{Name: "b", Port: 1, Type: Normal, Highest: 5, Lowest: 5}}},
	}
	for _, test := range tests {
		request, err := ParseRequest([]byte(test.payload))
		if err != nil || !reflect.DeepEqual(request, test.want) {
			t.Errorf("payload %q: %#v, %v; want %#v", test.payload, request, err, test.want)
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	tests := map[string]string{
		"empty":                      "",
		"unknown request":            "a\x00\x01foo",
		"raw distribution handshake": "N\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01a",
		"port without a name":        "z",
		"port of a bare NUL":         "z\x00",
		"NUL in a name":              "zfoo\x00bar",
		"two NULs after a name":      "zfoo\x00\x00",
		"name not UTF-8":             "zfoo\xff",
		"name of 256 characters":     "z" + longName + "a",
		"stop without a name":        "s",
		"handover without a name":    "h",
		"alive, nothing more":        "x",
		"alive without name length":  "x\x00\x01M\x00\x00\x05\x00\x05",
		"alive with an empty name":   "x\x00\x01M\x00\x00\x05\x00\x05\x00\x00\x00\x00",
		"alive, name length lies":    "x\x00\x01M\x00\x00\x05\x00\x05\x00\x05b\x00\x00",
		"alive, extra length lies":   "x\x00\x01M\x00\x00\x05\x00\x05\x00\x01b\x00\x01",
		"alive, no extra length":     "x\x00\x01M\x00\x00\x05\x00\x05\x00\x03bcd",
		"alive, NUL inside the name": "x\x00\x01M\x00\x00\x05\x00\x05\x00\x03b\x00c\x00\x00",
		"alive, NUL after the name":  "x\x00\x01M\x00\x00\x05\x00\x05\x00\x02b\x00\x00\x00",
		"longer than any request":    "n" + strings.Repeat("a", MaxRequest),
	}
	for name, payload := range tests {
		if request, err := ParseRequest([]byte(payload)); !errors.Is(err, ErrMalformed) || request != nil {
			t.Errorf("%s: got %#v and error %v, want ErrMalformed", name, request, err)
		}
	}
}

func TestReadRequestRefusesALengthAtOnce(t *testing.T) {
	r := strings.NewReader("\x0b\xf5zzz")
	if _, err := ReadRequest(r); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want ErrMalformed", err)
	}
	if r.Len() != 3 {
		t.Errorf("%d bytes are left behind the length, want 3", r.Len())
	}
	if _, err := ReadRequest(strings.NewReader("\x00\x00zzz")); !errors.Is(err, ErrMalformed) {
		t.Errorf("length 0: error %v, want ErrMalformed", err)
	}
}

func TestAppendRequestRefusesWhatNoDaemonTakes(t *testing.T) {
	refused := []Request{
		PortRequest{""},
		PortRequest{"a\x00b"},
		StopRequest{"\xff"},
		HandoverRequest{longName + "a"},
		AliveRequest{Node{Name: ""}},
		AliveRequest{Node{Name: "a", Extra: make([]byte, MaxExtra+1)}},
	}
	for _, request := range refused {
		b, err := AppendRequest([]byte("before"), request)
		if !errors.Is(err, ErrInvalidNode) || string(b) != "before" {
			t.Errorf("%.40v: got %q and error %v, want ErrInvalidNode", request, b, err)
		}
	}
	longest := AliveRequest{Node{Name: longName, Extra: make([]byte, MaxExtra)}}
	if b, err := AppendRequest(nil, longest); err != nil || len(b) > lengthSize+MaxRequest {
		t.Errorf("the longest request has %d bytes, error %v", len(b), err)
	}
}

// testResponse checks that a response is encoded as want and decoded from it,
// to the last byte and not a byte further, and from no part of it.
func testResponse[T any](t *testing.T, name string, response T, encode func(T) []byte, read func(io.Reader) (T, error), want string) {
	t.Run(name, func(t *testing.T) {
		if b := encode(response); string(b) != want {
			t.Errorf("encoded as %q, want %q", b, want)
		}
		r := strings.NewReader(want + "next")
		got, err := read(r)
		if err != nil || !reflect.DeepEqual(got, response) {
			t.Errorf("decoded as %#v, %v; want %#v", got, err, response)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("left %q unread, want %q", rest, "next")
		}
		for cut := range len(want) {
			if got, err := read(strings.NewReader(want[:cut])); !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
				t.Errorf("cut after %d bytes: decoded as %#v, error %v", cut, got, err)
			}
		}
		if got, err := read(strings.NewReader("?" + want[1:])); !errors.Is(err, ErrMalformed) {
			t.Errorf("with another first byte: decoded as %#v, error %v", got, err)
		}
	})
}

func TestResponseBytes(t *testing.T) {
	alive := func(r AliveResponse) []byte { return r.Append(nil) }
	testResponse(t, "old node registered", AliveResponse{ResultOK, 3, false}, alive, ReadAliveResponse, "y\x00\x00\x03")
	testResponse(t, "node registered", AliveResponse{ResultOK, 0x6b039375, true}, alive, ReadAliveResponse, "v\x00\x6b\x03\x93\x75")
	testResponse(t, "node refused", AliveResponse{ResultFailed, 99, true}, alive, ReadAliveResponse, "v\x01\x00\x00\x00\x63")

	port := func(r PortResponse) []byte { return r.Append(nil) }
	testResponse(t, "no such node", PortResponse{Result: ResultFailed}, port, ReadPortResponse, "w\x01")
	testResponse(t, "node", PortResponse{ResultOK, Node{"foo", 4711, Hidden, 0, 6, 5, nil}}, port, ReadPortResponse,
		"w\x00\x12\x67H\x00\x00\x06\x00\x05\x00\x03foo\x00\x00")
	testResponse(t, "node with extra data", PortResponse{ResultOK, Node{"foo", 1, Normal, 0, 5, 5, []byte("ABC\x00\x00")}}, port, ReadPortResponse,
		"w\x00\x00\x01M\x00\x00\x05\x00\x05\x00\x03foo\x00\x05ABC\x00\x00")

	handover := func(r HandoverResponse) []byte { return r.Append(nil) }
	testResponse(t, "handed over", HandoverResponse{ResultOK, 42}, handover, ReadHandoverResponse, "i\x00\x00\x2a")
	testResponse(t, "not handed over", HandoverResponse{Result: ResultFailed}, handover, ReadHandoverResponse, "i\x01")
}

func TestReadPortResponseBoundsItsFields(t *testing.T) {
	tests := map[string]string{
		"name":  "w\x00\x12\x67H\x00\x00\x06\x00\x05\xff\xff" + strings.Repeat("a", 0xffff) + "\x00\x00",
		"extra": "w\x00\x12\x67H\x00\x00\x06\x00\x05\x00\x01a\xff\xff" + strings.Repeat("a", 0xffff),
	}
	for field, response := range tests {
		if _, err := ReadPortResponse(strings.NewReader(response)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s of 65535 bytes: error %v, want ErrMalformed", field, err)
		}
	}
}

func TestListings(t *testing.T) {
	names := NamesResponse{4369, []Name{{"b", 2}, {"a name at port 7", 65535}}}
	namesBytes := "\x00\x00\x11\x11name b at port 2\nname a name at port 7 at port 65535\n"
	if b := names.Append(nil); string(b) != namesBytes {
		t.Errorf("names encoded as %q, want %q", b, namesBytes)
	}
	if got, err := ReadNamesResponse(strings.NewReader(namesBytes)); err != nil || !reflect.DeepEqual(got, names) {
		t.Errorf("names decoded as %#v, %v; want %#v", got, err, names)
	}
	dump := DumpResponse{1, []DumpEntry{{"b", 2, 5, false}, {"> at port 3, fd = 4", 6, -1, false}, {"old", 7, 8, true}}}
	dumpBytes := "\x00\x00\x00\x01active name     <b> at port 2, fd = 5\n\x00" +
		"active name     <> at port 3, fd = 4> at port 6, fd = -1\n\x00" +
		"old/unused name <old>, port = 7, fd = 8 \n\x00"
	if b := dump.Append(nil); string(b) != dumpBytes {
		t.Errorf("dump encoded as %q, want %q", b, dumpBytes)
	}
	if got, err := ReadDumpResponse(strings.NewReader(dumpBytes)); err != nil || !reflect.DeepEqual(got, dump) {
		t.Errorf("dump decoded as %#v, %v; want %#v", got, err, dump)
	}
	if _, err := ReadNamesResponse(strings.NewReader(namesBytes[:len(namesBytes)-1])); err != io.ErrUnexpectedEOF {
		t.Errorf("a line without its end: error %v, want io.ErrUnexpectedEOF", err)
	}
	for _, line := range []string{"nome b at port 2\n", "name b at port 65536\n", "name b at port \n", "name b\n", "\n"} {
		if got, err := ReadNamesResponse(strings.NewReader("\x00\x00\x11\x11" + line)); !errors.Is(err, ErrMalformed) {
			t.Errorf("line %q: decoded as %v, error %v", line, got, err)
		}
	}
	for _, line := range []string{"active name     <b> at port 2\n", "active name     <b>, port = 2, fd = 5\n", "passive\n"} {
		if got, err := ReadDumpResponse(strings.NewReader("\x00\x00\x11\x11" + line)); !errors.Is(err, ErrMalformed) {
			t.Errorf("line %q: decoded as %v, error %v", line, got, err)
		}
	}
}

// endless is a daemon that never stops listing.
type endless struct{ line []byte }

func (e endless) Read(b []byte) (int, error) { return copy(b, e.line), nil }

func TestListingsAreBounded(t *testing.T) {
	for _, line := range []string{"name " + longName + " at port 1\n", strings.Repeat("a", 4096)} {
		r := io.MultiReader(strings.NewReader("\x00\x00\x11\x11"), endless{[]byte(line)})
		if _, err := ReadNamesResponse(r); !errors.Is(err, ErrMalformed) {
			t.Errorf("endless list of %.20q: error %v, want ErrMalformed", line, err)
		}
	}
}

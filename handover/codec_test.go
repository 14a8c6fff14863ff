package handover

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// golden is the protocol as docs/PROTOCOL.md has it.
var golden = []struct {
	frame frame
	bytes string
}{
	{hello{[]byte{1}, "b", ""}, "H\x01\x00\x01\x01\x02\x00\x01b"},
	{hello{[]byte{1}, "b", "c.d"}, "H\x01\x00\x01\x01\x02\x00\x01b\x03\x00\x03c.d"},
	{accept{7}, "A\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07"},
	{refuse{7, "full"}, "N\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\x11\x00\x04full"},
	{welcome{1}, "W\x01\x00\x01\x01"},
	{reject{"who?", rejectNotRegistered}, "R\x11\x00\x04who?\x12\x00\x01\x02"},
	{
		offer{1 << 32, "b", netip.MustParseAddrPort("192.0.2.7:40001"), netip.MustParseAddrPort("[2001:db8::1]:4369"), "upgrade", []byte("\x00\x15N")},
		"O\x10\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x02\x00\x01b" +
			"\x20\x00\x07\x04\x9c\x41\xc0\x00\x02\x07" +
			"\x21\x00\x13\x06\x11\x11\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
			"\x22\x00\x07upgrade\x23\x00\x03\x00\x15N",
	},
	{commit{7}, "C\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07"},
	{cancel{7}, "X\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07"},
}

func TestFrames(t *testing.T) {
	for _, test := range golden {
		if got := test.frame.append([]byte("before ")); string(got) != "before "+test.bytes {
			t.Errorf("%#v is encoded as %q", test.frame, got)
		}
		if got, err := parse([]byte(test.bytes)); err != nil || !reflect.DeepEqual(got, test.frame) {
			t.Errorf("%q is decoded as %#v, error %v", test.bytes, got, err)
		}
		for n := range len(test.bytes) {
			f, err := parse([]byte(test.bytes[:n]))
			if err == nil && n == len(test.bytes)-fieldHead-3 {
				switch test.frame.(type) {
				case hello, offer:
					continue // host and taken, which come last, may be missing
				}
			}
			if !errors.Is(err, errMalformed) {
				t.Errorf("%q, cut short, is decoded as %#v, error %v", test.bytes[:n], f, err)
			}
		}
	}
}

func TestFieldsOfOtherVersions(t *testing.T) {
	const frame, id = "A", "\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07"
	for _, news := range []string{"\x7f\x00\x02no", "\x00\x00\x00", "\x20\x00\x01x\x11\x00\x00"} {
		for _, b := range []string{frame + news + id, frame + id + news} {
			if got, err := parse([]byte(b)); err != nil || got != (accept{7}) {
				t.Errorf("%q is decoded as %#v, error %v", b, got, err)
			}
		}
	}
}

func TestMalformedFrames(t *testing.T) {
	const id = "\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07"
	ends := func(peer string) string {
		return "O" + id + "\x02\x00\x01b\x20\x00" + string(rune(len(peer))) + peer + "\x21\x00\x07\x04\x9c\x41\xc0\x00\x02\x07\x22\x00\x01u"
	}
	if _, err := parse([]byte(ends("\x04\x9c\x41\xc0\x00\x02\x07"))); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{
		"empty":                     "",
		"unknown type":              "Z" + id,
		"two ids":                   "A" + id + id,
		"two unknown fields":        "A" + id + "\x7f\x00\x00\x7f\x00\x00",
		"unknown critical field":    "A" + id + "\x80\x00\x00",
		"a field of zero length":    "A\x10\x00\x00",
		"a byte after it":           "A" + id + "\x00",
		"long id":                   "A\x10\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x07",
		"no version":                "H\x02\x00\x01b",
		"no versions":               "H\x01\x00\x00\x02\x00\x01b",
		"empty name":                "H\x01\x00\x01\x01\x02\x00\x00",
		"name that is not UTF-8":    "H\x01\x00\x01\x01\x02\x00\x01\xff",
		"name too long":             "H\x01\x00\x01\x01\x02\x03\xfd" + strings.Repeat("x", maxName+1),
		"empty host":                "H\x01\x00\x01\x01\x02\x00\x01b\x03\x00\x00",
		"host with an @":            "H\x01\x00\x01\x01\x02\x00\x01b\x03\x00\x03a@b",
		"host of two lines":         "H\x01\x00\x01\x01\x02\x00\x01b\x03\x00\x03a\nb",
		"no reason":                 "N" + id,
		"reason too long":           "N" + id + "\x11\x01\x00" + strings.Repeat("x", 256),
		"reason that is not UTF-8":  "N" + id + "\x11\x00\x01\xff",
		"two versions chosen":       "W\x01\x00\x02\x01\x02",
		"address of family 5":       ends("\x05\x9c\x41\xc0\x00\x02\x07"),
		"IPv4 as IPv6":              ends("\x06\x9c\x41\xc0\x00\x02\x07"),
		"address of 5 bytes":        ends("\x04\x9c\x41\xc0\x00\x02\x07\x00"),
		"IPv4 mapped into IPv6":     ends("\x06\x9c\x41\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07"),
		"address without addresses": ends("\x04\x9c"),
	} {
		if f, err := parse([]byte(b)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: decoded as %#v, error %v", name, f, err)
		}
	}
}

func TestAddressesAreToldAsWhatTheyAre(t *testing.T) {
	mapped, plain := netip.MustParseAddrPort("[::ffff:192.0.2.7]:9"), netip.MustParseAddrPort("192.0.2.7:9")
	if a, b := appendAddress(nil, tagPeer, mapped), appendAddress(nil, tagPeer, plain); !bytes.Equal(a, b) {
		t.Errorf("%v is encoded as %q, %v as %q", mapped, a, plain, b)
	}
}

func TestLongReasonsAreClipped(t *testing.T) {
	long := strings.Repeat("ä", maxReason)
	got := clip(long)
	if len(got) != maxReason-1 || !strings.HasPrefix(long, got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// A frame that is decoded is the same when it is encoded and decoded again, and
// no longer than it was.
func FuzzFrame(f *testing.F) {
	for _, test := range golden {
		f.Add([]byte(test.bytes))
	}
	f.Add([]byte("A\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\x7f\x00\x02no"))
	f.Add([]byte("A\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		decoded, err := parse(b)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		encoded := decoded.append(nil)
		again, err := parse(encoded)
		if err != nil || !reflect.DeepEqual(again, decoded) || len(encoded) > len(b) {
			t.Fatalf("%q is decoded as %#v, encoded as %q and decoded as %#v, %v", b, decoded, encoded, again, err)
		}
	})
}

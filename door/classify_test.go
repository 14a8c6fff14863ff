package door

import (
	"encoding/binary"
	"strings"
	"testing"

	"oneport/epmd"
)

func frame(payload string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(payload)))) + payload
}

// handshake is the first message of a node of OTP 23 or later.
func handshake(name string) string {
	b := append([]byte("N"), make([]byte, 8+4)...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	return frame(string(b) + name)
}

const (
	oldHandshake = "\x00\x0fn\x00\x05\x00\x00\x00\x00a@b.test"
	httpRequest  = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
)

func TestFirstBytesTellTheProtocol(t *testing.T) {
	request, err := epmd.AppendRequest(nil, epmd.PortRequest{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	alive, err := epmd.AppendRequest(nil, epmd.AliveRequest{Node: epmd.Node{Name: "b", Port: 1, Type: epmd.Normal, Highest: 6, Lowest: 5, Extra: make([]byte, 300)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, message string
		want          Protocol
	}{
		{"PORT_PLEASE2", string(request), EPMD},
		{"ALIVE2 longer than 255 bytes", string(alive), EPMD},
		{"NAMES", "\x00\x01n", EPMD},
		{"handover", frame("hb"), HandoverRequest},
		{"handshake", handshake("a@b"), Raw},
		{"handshake, long name", handshake(strings.Repeat("a", 255) + "@" + strings.Repeat("b", 255)), Raw},
		{"old handshake", oldHandshake, Raw},
		{"HTTP", httpRequest, HTTP},
		{"lower-case method", "get / HTTP/1.1\r\n\r\n", HTTP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			full := tt.message + "next protocol"
			for n := 1; n < len(tt.message); n++ {
				p, length, err := cutFirst([]byte(full[:n]))
				if err != nil || length != 0 || p != Unknown && p != tt.want {
					t.Fatalf("after %d bytes: %s, %d, %v", n, p, length, err)
				}
			}
			for n := len(tt.message); n <= len(full); n++ {
				if p, length, err := cutFirst([]byte(full[:n])); p != tt.want || length != len(tt.message) || err != nil {
					t.Fatalf("after %d bytes: %s, %d, %v", n, p, length, err)
				}
			}
		})
	}
}

func TestUnknownProtocolsAreRefusedEarly(t *testing.T) {
	for name, b := range map[string]string{
		"TLS":                        "\x16\x03\x01",
		"PROXY v2":                   "\x0d",
		"an EPMD length that lies":   "\x0b\xf5z",
		"an EPMD request of nothing": "\x00\x00z",
		"no EPMD request":            "\x00\x05y",
		"a handshake of nothing":     "\x00\x02N",
		"a huge handshake":           "\x0b\xffN",
		"a handshake whose name is longer than itself": "\x00\x14N" + strings.Repeat("\x00", 12) + "\x00\xff",
		"a short old handshake":                        "\x00\x03n\x00\x05",
		"binary":                                       "\xff",
	} {
		if p, n, err := cutFirst([]byte(b)); err == nil {
			t.Errorf("%s: %s, %d", name, p, n)
		}
	}
}

func FuzzFirstBytes(f *testing.F) {
	f.Add([]byte("\x00\x02zb"))
	f.Add([]byte(handshake("a@b")))
	f.Add([]byte(oldHandshake))
	f.Add([]byte(httpRequest))
	f.Add([]byte("\x16\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		p, n, err := cutFirst(b)
		if n < 0 || n > len(b) || err != nil && n != 0 {
			t.Fatalf("%s, %d, %v", p, n, err)
		}
		if n > 0 { // what was complete stays so, whatever follows
			if p2, n2, err := cutFirst(append(b[:n:n], "GET"...)); p2 != p || n2 != n || err != nil {
				t.Fatalf("%s %d, then %s %d %v", p, n, p2, n2, err)
			}
		}
	})
}

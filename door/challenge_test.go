package door

import (
	"encoding/hex"
	"io"
	"strings"
	"testing"
)

// peer answers what it is told, and keeps what is written to it.
type peer struct {
	io.Reader
	heard strings.Builder
}

func (p *peer) Write(b []byte) (int, error) { return p.heard.Write(b) }

func unhex(t *testing.T, s string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Both versions, byte for byte.
func TestAskingANodeForItsName(t *testing.T) {
	const asker = "6f6e65706f72742d77686f 40 6f6e65706f72742e696e76616c6964"
	for _, tt := range []struct {
		name         string
		version      uint16
		asks, answer string
		want         string
	}{
		{"version 6", 6, "002a 4e 0000000407070f94 00000004 001b" + asker,
			"0003 736f6b 001c 4e 0000000d07df7fbd 01020304 65605040 0009 77656240696e6e6572", "web@inner"},
		{"version 6, longer than known", 6, "002a 4e 0000000407070f94 00000004 001b" + asker,
			"0010 736f6b5f73696d756c74616e656f7573 001e 4e 0000000d07df7fbd 01020304 65605040 0009 77656240696e6e6572 ffff", "web@inner"},
		{"version 5", 5, "0022 6e 0005 06070f94" + asker,
			"0003 736f6b 0014 6e 0005 00037fbd 01020304 77656240696e6e6572", "web@inner"},
		{"Latin-1", 6, "002a 4e 0000000407070f94 00000004 001b" + asker,
			"0003 736f6b 0016 4e 0000000d07df7fbd 01020304 65605040 0003 614 0e9", "a@é"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := peer{Reader: strings.NewReader(unhex(t, tt.answer))}
			got, err := exchangeNames(&p, tt.version)
			if err != nil || got != tt.want {
				t.Errorf("%q, %v", got, err)
			}
			if asks := unhex(t, tt.asks); p.heard.String() != asks {
				t.Errorf("asks %x, want %x", p.heard.String(), asks)
			}
		})
	}
}

// What is taken for a name can stand in a line, and is no longer than a name.
func FuzzChallenge(f *testing.F) {
	f.Add([]byte("N\x00\x00\x00\r\x07\xdf\x7f\xbd\x01\x02\x03\x04e`P@\x00\x09web@inner"))
	f.Add([]byte("n\x00\x05\x00\x03\x7f\xbd\x01\x02\x03\x04web@inner"))
	f.Add([]byte("N\x00\x00\x00\r\x07\xdf\x7f\xbd\x01\x02\x03\x04e`P@\xff\xffweb@inner"))
	f.Fuzz(func(t *testing.T, b []byte) {
		full, err := parseChallenge(b)
		if err != nil {
			return
		}
		name, host, ok := strings.Cut(full, "@")
		if !ok || name == "" || host == "" || strings.ContainsAny(full, "\x00\r\n /") || strings.Contains(host, "@") || len(full) > 2*len(b) {
			t.Fatalf("%q was taken from %q", full, b)
		}
	})
}

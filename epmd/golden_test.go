package epmd

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"
)

// recorded is what a real client and OTP's daemon sent to each other on one
// connection; testdata/capture.go recorded it.
type recorded struct {
	name              string
	request, response []byte
}

// captured reads testdata/captured.txt.
func captured(t testing.TB) []recorded {
	t.Helper()
	f, err := os.Open("testdata/captured.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []recorded
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, ":")
		request, response, ok := strings.Cut(strings.TrimSpace(rest), " ")
		r := recorded{name: name}
		r.request, err = hex.DecodeString(request)
		if err == nil {
			r.response, err = hex.DecodeString(response)
		}
		if !ok || err != nil {
			t.Fatalf("testdata/captured.txt: line %q is not name, request and response: %v", line, err)
		}
		all = append(all, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// What real nodes and OTP's daemon send is decoded to what they mean, and
// encoded to the very same bytes.
func TestCapturedFromOTP(t *testing.T) {
	type check func(t *testing.T, request Request, response []byte)
	alive := func(name string) check {
		return func(t *testing.T, request Request, b []byte) {
			node := request.(AliveRequest).Node
			if node.Name != name || node.Type != Normal || node.Port == 0 || node.Highest != 6 || node.Lowest != 5 || node.Extra != nil {
				t.Errorf("registered %+v", node)
			}
			response, err := ReadAliveResponse(bytes.NewReader(b))
			if err != nil || response.Result != ResultOK || !response.Extended || response.Creation < 4 {
				t.Errorf("answer %+v, %v", response, err)
			}
			if !bytes.Equal(response.Append(nil), b) {
				t.Errorf("the answer is encoded as %q", response.Append(nil))
			}
		}
	}
	port := func(want Node) check {
		return func(t *testing.T, request Request, b []byte) {
			if request != (PortRequest{want.Name}) {
				t.Errorf("request %#v", request)
			}
			response, err := ReadPortResponse(bytes.NewReader(b))
			want.Port = response.Node.Port
			if err != nil || response.Result != ResultOK || !reflect.DeepEqual(response.Node, want) || want.Port == 0 {
				t.Errorf("answer %+v, %v", response, err)
			}
			if !bytes.Equal(response.Append(nil), b) {
				t.Errorf("the answer is encoded as %q", response.Append(nil))
			}
		}
	}
	names := func(want string) check {
		return func(t *testing.T, request Request, b []byte) {
			response, err := ReadNamesResponse(bytes.NewReader(b))
			if request != (NamesRequest{}) || err != nil || len(response.Names) != 1 || response.Names[0].Name != want {
				t.Errorf("request %#v, answer %+v, %v", request, response, err)
			}
			if !bytes.Equal(response.Append(nil), b) {
				t.Errorf("the answer is encoded as %q", response.Append(nil))
			}
		}
	}
	word := func(want Request, answer string) check {
		return func(t *testing.T, request Request, b []byte) {
			if request != want || string(b) != answer {
				t.Errorf("request %#v, answer %q", request, b)
			}
		}
	}
	checks := map[string]check{
		"erl -sname": alive("short"),
		"erl -name":  alive("long"),
		// Only C nodes register as hidden ones.
		"erl -hidden":    alive("hidden"),
		"erl_epmd port":  port(Node{Name: "short", Type: Normal, Highest: 6, Lowest: 5}),
		"erl_epmd names": names("short"),
		"epmd -names":    names("short"),
		"epmd -dump": func(t *testing.T, request Request, b []byte) {
			response, err := ReadDumpResponse(bytes.NewReader(b))
			want := []DumpEntry{{Name: "short"}, {Name: "long", Old: true}}
			for i := range response.Entries {
				response.Entries[i].Port, response.Entries[i].FD = 0, 0
			}
			if request != (DumpRequest{}) || err != nil || !reflect.DeepEqual(response.Entries, want) {
				t.Errorf("request %#v, answer %+v, %v", request, response, err)
			}
		},
		"erl_epmd unknown":  word(PortRequest{"nobody"}, "w\x01"),
		"epmd -kill":        word(KillRequest{}, "OK"),
		"epmd -kill, alive": word(KillRequest{}, "NO"),
		"epmd -stop":        word(StopRequest{"short"}, "STOPPED"),
		"erl duplicate": func(t *testing.T, request Request, b []byte) {
			response, err := ReadAliveResponse(bytes.NewReader(b))
			if err != nil || response != (AliveResponse{ResultFailed, refusedCreation, true}) {
				t.Errorf("answer %+v, %v", response, err)
			}
		},
	}
	seen := make(map[string]bool)
	for _, exchange := range captured(t) {
		seen[exchange.name] = true
		t.Run(exchange.name, func(t *testing.T) {
			request, err := ReadRequest(bytes.NewReader(exchange.request))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := AppendRequest(nil, request); err != nil || !bytes.Equal(b, exchange.request) {
				t.Errorf("the request %q is encoded as %q, %v", exchange.request, b, err)
			}
			check := checks[exchange.name]
			if check == nil {
				t.Fatal("no check for this exchange")
			}
			check(t, request, exchange.response)
		})
	}
	for name := range checks {
		if !seen[name] {
			t.Errorf("%q is not in testdata/captured.txt", name)
		}
	}
}

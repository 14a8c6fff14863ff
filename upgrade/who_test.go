package upgrade_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The path of a full name is a node's with one word more; everything else of
// the node's path stays an upgrade.
func TestFullNames(t *testing.T) {
	s := httptest.NewServer(server().Handler(nil, nil))
	t.Cleanup(s.Close)
	for _, tt := range []struct {
		method, path, host string
		status             int
		body               string
	}{
		{"GET", "/erl/web/node", "here", 200, "web@inner\n"},
		{"GET", "/erl/%C3%A4lter/node", "here:4369", 200, "älter@inner\n"},
		{"GET", "/erl/x/node", "b.inside.example", 200, "x@innerb.inside.example\n"},
		{"HEAD", "/erl/web/node", "here", 200, ""},
		{"POST", "/erl/web/node", "here", 405, "this path takes GET, HEAD\n"},
		{"GET", "/erl/nobody/node", "here", 404, "no node \"nobody\" is registered here\n"},
		{"GET", "/erl/web/node", "elsewhere.example", 421, "\"elsewhere.example\" is not a name of this host; see --host and --forward of oneport serve\n"},
		{"GET", "/erl/a/b/node", "here", 400, "the path holds the part of the node's name before the @; the rest goes into the Host header\n"},
		{"GET", "/erl/node", "here", 426, "this path speaks only HTTP/1.1 with Connection: Upgrade and Upgrade: erlang-distribution\n"},
		{"GET", "/erl/web", "here", 426, "this path speaks only HTTP/1.1 with Connection: Upgrade and Upgrade: erlang-distribution\n"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, s.URL+tt.path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = tt.host
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tt.status || string(body) != tt.body {
			t.Errorf("%s %s at %s: %s, %q, %v; want %d, %q", tt.method, tt.path, tt.host, resp.Status, body, err, tt.status, tt.body)
		}
	}
}

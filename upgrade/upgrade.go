// Package upgrade is the HTTP/1.1 side of the one port: the upgrade of a
// connection to the Erlang distribution, the discovery of nodes, and the hosts
// that requests may be forwarded to.
//
// A client asks with
//
//	CONNECT /erl/<name> HTTP/1.1
//	Host: <host part of the node's name>
//	Connection: Upgrade
//	Upgrade: erlang-distribution
//
// or with GET in place of CONNECT, where an intermediary refuses such a
// CONNECT, and is answered with 101 and the Version of the distribution
// protocol (RFC 9110 section 7.8). Every byte after the empty line belongs to
// the node.
//
// GET /erl lists the nodes of a host, and GET /erl/<name>/node says the full
// name of one.
//
// The package decides and encodes. It knows nothing of EPMD, of how a node is
// reached, or of how bytes are moved: its owner reads the request head, asks
// Server.Decide, and does what the Decision says.
package upgrade

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// Protocol is the token of the Upgrade header.
	Protocol = "erlang-distribution"
	// Root is the path of discovery; a node's path is Root + "/" + its name.
	Root = "/erl"
	// maxName is the longest name of a node, in characters, as in EPMD.
	maxName = 255
)

// HeadLength returns the length in bytes of the request or response head that b
// starts with, the empty line included, or 0 if its end has not come yet.
// As RFC 9112 section 2.2 allows, a line may end with a bare LF.
func HeadLength(b []byte) int {
	for i := 0; ; {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return 0
		}
		i += j + 1
		switch rest := b[i:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return i + 1
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return i + 2
		}
	}
}

// ParseHead parses one complete request head, as cut by HeadLength.
// Its error is a *Refusal.
func ParseHead(head []byte) (*http.Request, error) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return nil, &Refusal{Status: http.StatusBadRequest, Reason: "malformed HTTP request"}
	}
	return r, nil
}

// Node is what clients are told of a node of this host.
type Node struct {
	Name    string `json:"name"`
	Hidden  bool   `json:"hidden"`
	Highest uint16 `json:"highest"` // highest version of the distribution protocol
	Lowest  uint16 `json:"lowest"`
}

// A Directory knows the nodes of this host.
type Directory interface {
	// Lookup finds a node by its name, or by another one that is good for it.
	Lookup(name string) (Node, bool)
	Nodes() []Node
}

// Server decides what becomes of a request.
type Server struct {
	// Directory knows the nodes. Required.
	Directory Directory
	// Ours says whether a host, without port and brackets and in lower case, is
	// a name of this host. Required.
	Ours func(host string, local netip.AddrPort) bool
	// MayDiscover says whether a peer may list this host's nodes. Required.
	MayDiscover func(peer, local netip.AddrPort) bool
	// Who says the full name of the node that d names, as the node itself knows
	// it. Its error is a *Refusal. Required.
	Who func(ctx context.Context, d Decision, local netip.AddrPort) (string, error)
	// Forward lists the other hosts that requests are forwarded to.
	Forward []Pattern
}

// A Decision says which node a request asks for, and where.
type Decision struct {
	Node    string   // of a node of this host: as it is registered, but see DecideWho
	Version uint16   // of a node of this host: the highest that it speaks
	Host    string   // of a node elsewhere: its host; else empty
	Via     *Pattern // of a node elsewhere: what allows it
	Hops    []string // of a node elsewhere: the doors that the request came through
}

// IsUpgrade says whether a request is for one node, rather than for discovery,
// a node's name, or a web server.
func IsUpgrade(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, Root+"/") && !IsWho(r)
}

// IsDiscovery says whether a request is for the list of nodes.
func IsDiscovery(r *http.Request) bool { return r.URL.Path == Root }

// Decide says which node the upgrade request r is for. Its error is a *Refusal.
func (s *Server) Decide(r *http.Request, local netip.AddrPort) (Decision, error) {
	if r.Method != http.MethodConnect && r.Method != http.MethodGet {
		return Decision{}, refuseMethod("CONNECT, GET")
	}
	name := r.URL.Path[len(Root)+1:]
	if err := checkName(name); err != nil {
		return Decision{}, err
	}
	host, err := hostOf(r)
	if err != nil {
		return Decision{}, err
	}
	if !r.ProtoAtLeast(1, 1) || !hasToken(r.Header["Connection"], "upgrade") || !hasToken(r.Header["Upgrade"], Protocol) {
		return Decision{}, refuse(http.StatusUpgradeRequired, "this path speaks only HTTP/1.1 with Connection: Upgrade and Upgrade: "+Protocol,
			"Upgrade", Protocol, "Connection", "Upgrade")
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return Decision{}, refuse(http.StatusBadRequest, "an upgrade request has no body")
	}
	return s.locate(r, name, host, local)
}

// locate says where the node is that a request names.
func (s *Server) locate(r *http.Request, name, host string, local netip.AddrPort) (Decision, error) {
	if s.Ours(host, local) {
		n, ok := s.Directory.Lookup(name)
		if !ok {
			return Decision{}, Unknown(name)
		}
		return Decision{Node: n.Name, Version: n.Highest}, nil
	}
	for i := range s.Forward {
		if s.Forward[i].Match(host) {
			return Decision{Node: name, Host: host, Via: &s.Forward[i], Hops: hops(r)}, nil
		}
	}
	return Decision{}, refuse(http.StatusMisdirectedRequest,
		fmt.Sprintf("%q is not a name of this host; see --host and --forward of oneport serve", host))
}

// Discover returns this host's nodes, sorted by name. Its error is a *Refusal.
func (s *Server) Discover(r *http.Request, peer, local netip.AddrPort) ([]Node, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, refuseMethod("GET, HEAD")
	}
	if !s.MayDiscover(peer, local) {
		return nil, refuse(http.StatusForbidden, "discovery is not open to this address; see --discover-from of oneport serve")
	}
	nodes := append([]Node{}, s.Directory.Nodes()...)
	sort.Slice(nodes, func(i, j int) bool { return nodes[i].Name < nodes[j].Name })
	return nodes, nil
}

// AppendAccept appends the answer that lets a client go on in the distribution
// protocol, of which the node speaks version.
func AppendAccept(dst []byte, version uint16) []byte {
	return fmt.Appendf(dst, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nVersion: %d\r\n\r\n", Protocol, version)
}

func checkName(name string) error {
	var why string
	switch {
	case name == "":
		why = "the name of the node is missing: the path is /erl/<name>"
	case !utf8.ValidString(name):
		why = "the name of the node is not UTF-8"
	case utf8.RuneCountInString(name) > maxName:
		why = "the name of the node is longer than 255 characters"
	case strings.ContainsAny(name, "@/\x00"):
		why = "the path holds the part of the node's name before the @; the rest goes into the Host header"
	default:
		return nil
	}
	return refuse(http.StatusBadRequest, why)
}

// hostOf returns the host that a request is for: no port, no brackets, lower
// case, no dot at the end.
func hostOf(r *http.Request) (string, error) {
	if r.Host == "" {
		return "", refuse(http.StatusBadRequest, "the Host header is missing")
	}
	u := url.URL{Host: r.Host}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	_, err := strconv.ParseUint("0"+u.Port(), 10, 17)
	if host == "" || err != nil || strings.ContainsAny(host, "/@ \t") {
		return "", refuse(http.StatusBadRequest, "malformed Host header")
	}
	// One spelling for each address, so that it can be compared.
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	return host, nil
}

// hasToken looks for a token in a header that is a comma-separated list.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// Unknown is the refusal of a request for a node that this host does not have.
func Unknown(name string) *Refusal {
	return refuse(http.StatusNotFound, fmt.Sprintf("no node %q is registered here", name))
}

// A Refusal is an answer that says no, and an error.
type Refusal struct {
	Status int         // of HTTP
	Reason string      // one line
	Header http.Header // beside the usual ones; may be nil
}

func (r *Refusal) Error() string { return fmt.Sprintf("%d: %s", r.Status, r.Reason) }

// Append appends the whole answer; the connection is to be closed after it.
func (r *Refusal) Append(dst []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.Status, http.StatusText(r.Status))
	h := r.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(r.Reason)+1))
	if h.Get("Connection") == "" {
		h.Set("Connection", "close")
	} else {
		h.Set("Connection", h.Get("Connection")+", close")
	}
	h.Write(&b) // to memory: cannot fail
	fmt.Fprintf(&b, "\r\n%s\n", r.Reason)
	return append(dst, b.Bytes()...)
}

// AsRefusal returns the *Refusal in err's chain, or one with status 503.
func AsRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Status: http.StatusServiceUnavailable, Reason: err.Error()}
}

func refuse(status int, reason string, header ...string) *Refusal {
	r := &Refusal{Status: status, Reason: reason}
	for i := 0; i+1 < len(header); i += 2 {
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func refuseMethod(allow string) *Refusal {
	return refuse(http.StatusMethodNotAllowed, "this path takes "+allow, "Allow", allow)
}

package upgrade

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// whoSuffix ends the path of a node's full name. It cannot be mistaken for a
// part of the name before it, which holds no slash.
const whoSuffix = "/node"

// IsWho says whether a request is for the full name of a node: what stands
// behind the @ may be another name of the host than the one that the node was
// found by, and the distribution's handshake insists on it.
func IsWho(r *http.Request) bool {
	return len(r.URL.Path) > len(Root+"/"+whoSuffix) && strings.HasPrefix(r.URL.Path, Root+"/") && strings.HasSuffix(r.URL.Path, whoSuffix)
}

// DecideWho says which node a request for a full name means. The decision's Node
// is as asked, which may be another name than the registered one: that may say
// the full name itself. Its error is a *Refusal.
func (s *Server) DecideWho(r *http.Request, local netip.AddrPort) (Decision, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return Decision{}, refuseMethod("GET, HEAD")
	}
	name := strings.TrimSuffix(r.URL.Path[len(Root)+1:], whoSuffix)
	if err := checkName(name); err != nil {
		return Decision{}, err
	}
	host, err := hostOf(r)
	if err != nil {
		return Decision{}, err
	}
	d, err := s.locate(r, name, host, local)
	d.Node = name
	return d, err
}

// serveWho answers with the full name in one line.
func (s *Server) serveWho(w http.ResponseWriter, r *http.Request) {
	d, err := s.DecideWho(r, localOf(r))
	var full string
	if err == nil {
		full, err = s.Who(r.Context(), d, localOf(r))
	}
	if err != nil {
		writeRefusal(w, AsRefusal(err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintln(w, full) // an error here is the client's going away
}

package upgrade

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
)

// Web returns a handler that passes requests to the web server at target:
// keep-alive, streamed bodies and other upgrades (WebSocket) included. The
// Host header is kept; X-Forwarded-For, -Host and -Proto say who asked, and
// replace what the client may have claimed (who is local is decided by the socket,
// never by a header). Failures go to errorLog.
func Web(target *url.URL, errorLog *log.Logger) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		FlushInterval: -1, // a streamed answer is not held back
		ErrorLog:      errorLog,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			errorLog.Printf("web backend %s: %v", target.Redacted(), err)
			http.Error(w, "the web server behind this port does not answer", http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Whether an answer may begin before the request's body has ended is
		// the backend's to decide. HTTP/1.x connections always support it.
		_ = http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	})
}

// A Taker takes over a connection that was upgraded on a kept-alive HTTP
// connection. taken holds the bytes that had been read beyond the request.
type Taker func(c net.Conn, taken []byte, d Decision)

// Handler serves everything that is not the first request of its connection or
// not an upgrade: discovery, nodes' names, and the web server behind it (nil: 404). An
// upgrade on a kept-alive connection, as an intermediary may send it, goes to
// take.
func (s *Server) Handler(web http.Handler, take Taker) http.Handler {
	if web == nil {
		web = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no web server stands behind this port; see --web of oneport serve", http.StatusNotFound)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case IsDiscovery(r):
			s.serveDiscovery(w, r)
		case IsWho(r):
			s.serveWho(w, r)
		case IsUpgrade(r):
			s.serveUpgrade(w, r, take)
		default:
			web.ServeHTTP(w, r)
		}
	})
}

func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	nodes, err := s.Discover(r, peerOf(r), localOf(r))
	if err != nil {
		writeRefusal(w, AsRefusal(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(nodes) // an error here is the client's going away
}

func (s *Server) serveUpgrade(w http.ResponseWriter, r *http.Request, take Taker) {
	d, err := s.Decide(r, localOf(r))
	if err != nil {
		writeRefusal(w, AsRefusal(err))
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeRefusal(w, refuse(http.StatusServiceUnavailable, "this connection cannot be upgraded"))
		return
	}
	taken, _ := buf.Reader.Peek(buf.Reader.Buffered()) // what is buffered is there
	take(conn, append([]byte(nil), taken...), d)
}

func writeRefusal(w http.ResponseWriter, r *Refusal) {
	for k, v := range r.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Connection", "close")
	http.Error(w, r.Reason, r.Status)
}

func peerOf(r *http.Request) netip.AddrPort {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http took it from the socket
	return a
}

func localOf(r *http.Request) netip.AddrPort {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"oneport/door"
	"oneport/loader"
)

// typed is serve's command line with nothing wrong in it.
func typed() serveFlags {
	return serveFlags{
		listen: []string{"127.0.0.1:4369"}, control: defaultControl, advertise: "door", nodeSocket: defaultNodeSocket, path: autoPath, shortcut: "auto", pins: loader.Pins,
		headerTimeout: time.Second, maxHeader: door.DefaultMaxHeader, maxConns: 100, maxPerSource: 10,
	}
}

func TestFlagsBecomeTheDoorsOptions(t *testing.T) {
	f := typed()
	f.listen = []string{":4369", "[::1]:0"}
	f.hosts = []string{"db1.example.com"}
	f.addresses = []string{"b=127.0.0.2", "c=::ffff:127.0.0.3"}
	f.discoverFrom = []string{"192.0.2.0/24"}
	f.advertise = "direct"
	f.aliases = []string{"www=web", "api=web@10-0-3-7.internal"}
	f.web = "http://127.0.0.1:8080"
	f.forward = []string{"*.example.com:5000"}
	o, err := f.options()
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"listen":        len(o.Listen) == 2,
		"host":          len(o.Hosts) == 1 && o.Hosts[0] == "db1.example.com",
		"address":       o.Addresses[netip.MustParseAddr("127.0.0.2")] == "b" && o.Addresses[netip.MustParseAddr("127.0.0.3")] == "c",
		"discover-from": len(o.DiscoverFrom) == 1 && o.DiscoverFrom[0] == netip.MustParsePrefix("192.0.2.0/24"),
		"alias":         len(o.Aliases) == 2 && o.Aliases[1] == door.Alias{Name: "api", Target: "web@10-0-3-7.internal"},
		"advertise":     o.Advertise == door.AdvertiseDirect,
		"web":           o.Web != nil && o.Web.Host == "127.0.0.1:8080",
		"forward":       len(o.Forward) == 1 && o.Forward[0].String() == "*.example.com:5000",
		"limits":        o.MaxHeader == door.DefaultMaxHeader && o.HeaderTimeout == time.Second && o.MaxConns == 100 && o.MaxPerSource == 10,
	} {
		if !ok {
			t.Errorf("--%s did not arrive: %+v", name, o)
		}
	}
}

func TestWrongValuesNameTheirFlag(t *testing.T) {
	for flag, set := range map[string]func(*serveFlags){
		"--listen":   func(f *serveFlags) { f.listen = []string{"127.0.0.1:epmd"} },
		"--host":     func(f *serveFlags) { f.hosts = []string{""} },
		"--address":  func(f *serveFlags) { f.addresses = []string{"b=127.0.0.2", "c=::ffff:127.0.0.2"} },
		"--alias":    func(f *serveFlags) { f.aliases = []string{"www"} },
		"--web":      func(f *serveFlags) { f.web = "ftp://127.0.0.1" },
		"--shortcut": func(f *serveFlags) { f.shortcut = "on" },
		"--path":     func(f *serveFlags) { f.path = "direct" },
		"--pins":     func(f *serveFlags) { f.pins = "oneport" },
		"--control":  func(f *serveFlags) { f.control = "/" + strings.Repeat("x", maxControlPath) },
	} {
		f := typed()
		set(&f)
		if _, err := f.options(); err == nil || !strings.HasPrefix(err.Error(), flag+" ") {
			t.Errorf("wrong %s: %v", flag, err)
		}
	}
}

// Relayed connections have two descriptors each: the limit must hold when all
// of them are.
func TestConnectionsFitTheFileLimit(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := door.Options{MaxConns: 1 << 30, Log: logrus.New()}
	o.Log.SetOutput(&log)
	clipToFileLimit(&o)
	if o.MaxConns < 1 || 2*uint64(o.MaxConns) > limit.Cur {
		t.Errorf("%d connections with %d descriptors", o.MaxConns, limit.Cur)
	}
	if !strings.Contains(log.String(), "LimitNOFILE=") {
		t.Errorf("no remedy in %q", &log)
	}
	log.Reset()
	o.MaxConns = 16
	if clipToFileLimit(&o); o.MaxConns != 16 || log.Len() != 0 {
		t.Errorf("16 connections became %d: %s", o.MaxConns, &log)
	}
}

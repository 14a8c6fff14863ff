package handover

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"
)

// wantReject hears a REJECT of this code with some reason, and the end.
func (n *node) wantReject(code rejectCode) {
	n.t.Helper()
	f, _ := n.hear()
	if r, ok := f.(reject); !ok || r.code != code || r.reason == "" {
		n.t.Errorf("the daemon says %#v, want REJECT %d", f, code)
	}
	n.expect(nil)
}

func TestReceiversThatAreNotWelcome(t *testing.T) {
	log, logged := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	d := start(t, &Server{HelloTimeout: 200 * time.Millisecond, Log: log}, "b")
	d.register("mine", nobody)
	tests := []struct {
		name string
		uid  int
		said []byte
		code rejectCode
	}{
		{"no common version", 0, hello{[]byte{0, 2, 255}, "b", ""}.append(nil), rejectVersion},
		{"not registered", 0, hello{[]byte{version}, "c", ""}.append(nil), rejectNotRegistered},
		{"the longest name", 0, hello{[]byte{version}, strings.Repeat("😀", 255), ""}.append(nil), rejectNotRegistered},
		{"another user's name", nobody, hello{[]byte{version}, "b", ""}.append(nil), rejectOwner},
		{"garbage", 0, []byte("GET / HTTP/1.1\r\n\r\n"), rejectMalformed},
		{"an answer first", 0, accept{1}.append(nil), rejectMalformed},
		{"nothing", 0, nil, rejectMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := d.Stats()
			var n *node
			asUser(t, test.uid, func() { n = d.dial(t) })
			if test.said != nil {
				if _, err := n.conn.Write(test.said); err != nil {
					t.Fatal(err)
				}
			}
			n.wantReject(test.code)
			if after := d.Stats(); after.Receivers != 0 || after.Rejected != before.Rejected+1 {
				t.Errorf("counted %+v, before %+v", after, before)
			}
			level := logrus.WarnLevel
			if test.code == rejectNotRegistered {
				level = logrus.DebugLevel // as it happens to all after a restart of the daemon
			}
			until(t, "it is logged", func() bool {
				entry := logged.LastEntry()
				return entry != nil && entry.Level == level && entry.Data["uid"] == uint32(test.uid)
			})
			logged.Reset()
		})
	}
	// Not even a word: it is closed all the same, and nothing is said of it.
	d.dial(t).conn.Close()

	asUser(t, nobody, func() { d.join(t, "mine") })
	d.join(t, "mine") // root may always
}

// Other versions beside ours, and fields of a later version, do not matter.
func TestAReceiverOfALaterVersion(t *testing.T) {
	d := start(t, &Server{}, "b")
	n := d.dial(t)
	b := hello{[]byte{9, version, 3}, "b", ""}.append(nil)
	if _, err := n.conn.Write(appendField(b, 0x7f, []byte("news"))); err != nil {
		t.Fatal(err)
	}
	n.expect(welcome{version})
}

// A restarted receiver replaces the one before it, whose offers are void. What
// was committed to the old one before is not: the node reads it, although the
// daemon has closed the connection with answers unread.
func TestARestartedReceiver(t *testing.T) {
	d := start(t, &Server{AcceptTimeout: patience}, "b")
	old := d.join(t, "b")
	done := d.offer(t, offerOf("b", doorOf(t)))
	committed, _ := old.offered()
	old.say(accept{committed.id})
	if got := <-done; got.err != nil {
		t.Fatal(got.err)
	}
	open := d.offer(t, offerOf("b", doorOf(t)))
	until(t, "the offer is out, behind the commit", func() bool {
		return old.unread() > len(commit{committed.id}.append(nil))
	})
	for range 200 {
		old.say(refuse{1 << 40, "made up"})
	}
	restarted := d.join(t, "b")
	wantError(t, (<-open).err, ErrGone)

	old.expect(commit{committed.id})
	if f, _ := old.hear(); f == nil {
		t.Error("the open offer was lost")
	}
	old.expect(nil)

	done = d.offer(t, offerOf("b", doorOf(t)))
	take(restarted)
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
	until(t, "only one is left", func() bool { return d.Stats().Receivers == 1 })
}

// A name that is registered anew by another user is not the old receiver's.
func TestANameThatChangesHands(t *testing.T) {
	d := start(t, &Server{})
	d.register("b", nobody)
	var n *node
	asUser(t, nobody, func() { n = d.join(t, "b") })
	d.register("b", 1)
	door := doorOf(t)
	if _, err := d.Offer(t.Context(), offerOf("b", door)); err != ErrNoReceiver {
		t.Errorf("error %v", err)
	}
	n.expect(nil)
	until(t, "it is forgotten", func() bool { return !d.Takes("b") })
}

func TestThoseWhoSayNothingAreBounded(t *testing.T) {
	d := start(t, &Server{HelloTimeout: patience}, "b", "c")
	d.register("c", nobody)
	n := d.join(t, "b")
	for range maxStrangers {
		d.dial(t)
	}
	until(t, "all are there", func() bool {
		d.Server.mu.Lock()
		defer d.Server.mu.Unlock()
		return d.strangers[0] == maxStrangers
	})
	d.dial(t).wantReject(rejectTooMany)

	// Neither other users nor those who are welcome mind.
	asUser(t, nobody, func() { d.join(t, "c") })
	done := d.offer(t, offerOf("b", doorOf(t)))
	take(n)
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
}

func TestTheServerEnds(t *testing.T) {
	d := start(t, &Server{AcceptTimeout: patience, HelloTimeout: patience}, "b")
	n, silent := d.join(t, "b"), d.dial(t)
	client, door := pair(t, "tcp4")
	done := d.offer(t, offerOf("b", door))
	_, conn := n.offered()
	until(t, "the silent one is there", func() bool {
		d.Server.mu.Lock()
		defer d.Server.mu.Unlock()
		return d.strangers[0] == 1
	})
	d.stop()
	wantError(t, (<-done).err, ErrGone)
	n.expect(nil)
	silent.wantReject(rejectShuttingDown)
	conn.Close()
	talk(t, client, door)
	if d.Takes("b") {
		t.Error("a receiver is left")
	}
	if _, err := os.Lstat(d.path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(shortDir(t), "node.sock")
	stale, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	asUser(t, nobody, func() {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	})
	if l, err := Listen(path); err == nil {
		l.Close()
		t.Error("a socket in use was replaced")
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("in place of a stale socket: %v", err)
	}
	l.Close()
}

func TestListenReplacesNothingElse(t *testing.T) {
	dir := shortDir(t)
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("unix", filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for _, path := range []string{file, link, stream.Addr().String(), filepath.Join(dir, "no", "such"), filepath.Join(dir, strings.Repeat("x", maxPath))} {
		if l, err := Listen(path); err == nil {
			l.Close()
			t.Errorf("%s was taken", path)
		}
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "mine" {
		t.Errorf("the file has %q, error %v", content, err)
	}
}

// A daemon that has run out of descriptors goes on when there are some again.
func TestAcceptingGoesOnAfterAShortage(t *testing.T) {
	log, logged := logtest.NewNullLogger()
	d := start(t, &Server{Log: log}, "b")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	withoutDescriptors(t, func() {
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: d.path}); err != nil {
			t.Error(err)
			return
		}
		until(t, "the shortage is logged", func() bool { return len(logged.AllEntries()) > 0 })
	})
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := &node{t, c.(*net.UnixConn)}
	n.say(hello{[]byte{version}, "b", ""})
	n.expect(welcome{version})
}

// withoutDescriptors calls do while the process cannot open any.
func withoutDescriptors(t *testing.T, do func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

func TestAListenerThatIsClosedEndsTheServer(t *testing.T) {
	l, err := Listen(filepath.Join(shortDir(t), "node.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := new(Server).Serve(t.Context(), l); err == nil {
		t.Error("a closed listener was served")
	}
}

// What stands behind the @ is known as long as the receiver that said it is
// connected, and may be asked for.
func TestReceiversSayTheirHost(t *testing.T) {
	d := start(t, &Server{}, "b", "c")
	b := d.dial(t)
	b.say(hello{[]byte{version}, "b", "inner"})
	b.expect(welcome{version})
	d.join(t, "c")
	for name, want := range map[string]string{"b": "inner", "c": "", "nobody": ""} {
		if host, ok := d.Host(name); host != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", name, host, ok)
		}
	}
	b.conn.Close()
	until(t, "the end of the receiver", func() bool { return !d.Takes("b") })
	if host, ok := d.Host("b"); ok {
		t.Errorf("%q after its end", host)
	}
}

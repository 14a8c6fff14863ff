package handover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAConnectionGoesToItsNode(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			d := start(t, &Server{}, "b")
			n := d.join(t, "b")
			if !d.Takes("b") || d.Takes("c") {
				t.Errorf("Takes: b %v, c %v", d.Takes("b"), d.Takes("c"))
			}
			client, door := pair(t, network)
			if _, err := io.WriteString(client, "taken unread "); err != nil {
				t.Fatal(err)
			}
			read(t, door, "taken ")

			o := offerOf("b", door)
			o.Taken = []byte("taken ")
			o.Grant = func() error {
				_, err := io.WriteString(door, "yes ")
				return err
			}
			done := d.offer(t, o)
			got, conn := n.offered()
			if got.name != "b" || got.peer != endpoint(client.LocalAddr()) || got.local != endpoint(client.RemoteAddr()) ||
				got.protocol != "upgrade" || string(got.taken) != "taken " {
				t.Errorf("offered %+v", got)
			}
			if conn.RemoteAddr().String() != client.LocalAddr().String() {
				t.Errorf("the peer is %v, the client %v", conn.RemoteAddr(), client.LocalAddr())
			}
			n.say(accept{got.id})
			n.expect(commit{got.id})
			if got := <-done; got != (result{true, nil}) {
				t.Fatalf("offer: %+v", got)
			}
			door.Close()
			read(t, client, "yes ")
			read(t, conn, "unread ")
			talk(t, client, conn)

			// What is committed does not depend on the daemon.
			n.conn.Close()
			d.stop()
			talk(t, client, conn)
			conn.Close()
			wantEnd(t, client)
		})
	}
}

// A node gets what accept(2) would have given it: package net's settings are
// not its own.
func TestTheSocketIsAsAccepted(t *testing.T) {
	d := start(t, &Server{}, "b")
	n := d.join(t, "b")
	_, door := pair(t, "tcp4")
	if err := errors.Join(door.SetKeepAlive(true), door.SetNoDelay(true)); err != nil {
		t.Fatal(err)
	}
	done := d.offer(t, offerOf("b", door))
	b, fds := n.packet()
	if len(fds) != 1 {
		t.Fatalf("%q came with %d descriptors", b, len(fds))
	}
	for _, option := range []struct {
		name          string
		level, option int
	}{{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY}} {
		if value, err := unix.GetsockoptInt(fds[0], option.level, option.option); err != nil || value != 0 {
			t.Errorf("%s is %d, error %v", option.name, value, err)
		}
	}
	// Shared with the daemon, which may have to go on with the connection.
	if flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, error %v: O_NONBLOCK is gone", flags, err)
	}
	unix.Close(fds[0])
	f, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	n.say(refuse{f.(offer).id, "seen enough"})
	if got := <-done; got.err == nil {
		t.Error("refused, and taken")
	}
}

// Whatever a node does with an offer, the client has not been told anything,
// its connection is as good as before, and the others are served meanwhile.
func TestAConnectionThatItsNodeDoesNotTake(t *testing.T) {
	tests := []struct {
		name string
		play func(n *node, o offer)
		want error
	}{
		{"refused", func(n *node, o offer) { n.say(refuse{o.id, "full\x1b"}) }, &RefusedError{"full\x1b"}},
		{"never answered", func(n *node, o offer) { n.expect(cancel{o.id}) }, ErrTimeout},
		{"another's offer accepted", func(n *node, o offer) {
			n.say(accept{o.id + 1})
			n.expect(cancel{o.id})
		}, ErrTimeout},
		{"closed in the middle", func(n *node, _ offer) { n.conn.Close() }, ErrGone},
		{"a megabyte of garbage", func(n *node, _ offer) {
			garbage := make([]byte, 64<<10)
			for range 16 {
				for i := range garbage {
					garbage[i] = byte(rand.Uint32())
				}
				if _, err := n.conn.Write(garbage); err != nil {
					break // it has heard enough
				}
			}
			n.expect(nil)
		}, ErrGone},
		{"a field cut short", func(n *node, _ offer) {
			if _, err := n.conn.Write([]byte("A\x10\x00\x08\x00")); err != nil {
				n.t.Error(err)
			}
			n.expect(nil)
		}, ErrGone},
		{"a frame of the daemon's", func(n *node, o offer) { n.say(commit{o.id}); n.expect(nil) }, ErrGone},
		{"HELLO again", func(n *node, _ offer) { n.say(hello{[]byte{version}, "bad", ""}); n.expect(nil) }, ErrGone},
		{"a descriptor with the answer", func(n *node, o offer) {
			if _, _, err := n.conn.WriteMsgUnix(accept{o.id}.append(nil), unix.UnixRights(0), nil); err != nil {
				n.t.Error(err)
			}
			n.expect(nil)
		}, ErrGone},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := start(t, &Server{AcceptTimeout: 200 * time.Millisecond}, "bad", "good")
			bad, good := d.join(t, "bad"), d.join(t, "good")
			client, door := pair(t, "tcp4")
			o := offerOf("bad", door)
			o.Grant = func() error { t.Error("yes was said to the client"); return nil }
			done := d.offer(t, o)
			got, conn := bad.offered()
			served := d.offer(t, offerOf("good", doorOf(t)))
			started := time.Now()
			take(good)
			if got := <-served; got.err != nil || time.Since(started) > time.Second {
				t.Errorf("another node's client: %v, after %v", got.err, time.Since(started))
			}
			test.play(bad, got)
			switch got := <-done; want := test.want.(type) {
			case *RefusedError:
				if refused := (*RefusedError)(nil); !errors.As(got.err, &refused) || *refused != *want || strings.Contains(got.err.Error(), "\x1b") {
					t.Errorf("error %q", got.err)
				}
			default:
				if got.granted || !errors.Is(got.err, want) {
					t.Errorf("granted %v, error %v, want %v", got.granted, got.err, want)
				}
			}
			conn.Close() // as CANCEL and the end demand: nothing but a close
			talk(t, client, door)
			door.Close()
			wantEnd(t, client)
		})
	}
}

// doorOf is the door's end of some client's connection.
func doorOf(t testing.TB) *net.TCPConn {
	_, door := pair(t, "tcp4")
	return door
}

// take takes one offer as it should be taken.
func take(n *node) *net.TCPConn {
	n.t.Helper()
	o, conn := n.offered()
	n.say(accept{o.id})
	n.expect(commit{o.id})
	return conn
}

func TestAnAnswerThatIsTooLateDoesNoHarm(t *testing.T) {
	d := start(t, &Server{AcceptTimeout: 500 * time.Millisecond}, "b")
	n := d.join(t, "b")
	client, door := pair(t, "tcp4")
	got := <-d.offer(t, offerOf("b", door))
	wantError(t, got.err, ErrTimeout)
	o, conn := n.offered()
	got = <-d.offer(t, offerOf("b", door))
	wantError(t, got.err, ErrResting)
	n.say(accept{o.id})
	n.expect(cancel{o.id})
	conn.Close()
	until(t, "the answer is counted", func() bool { return d.Stats().Stray == 1 })
	talk(t, client, door)

	// It has answered, so it is asked again.
	done := d.offer(t, offerOf("b", door))
	conn = take(n)
	if got := <-done; got.err != nil {
		t.Errorf("the next offer: %v", got.err)
	}
	door.Close()
	talk(t, client, conn)
}

func TestASecondAnswerIsIgnored(t *testing.T) {
	d := start(t, &Server{}, "b")
	n := d.join(t, "b")
	client, door := pair(t, "tcp4")
	done := d.offer(t, offerOf("b", door))
	o, conn := n.offered()
	for range 2 {
		n.say(accept{o.id})
	}
	n.say(refuse{o.id, "no, after all"})
	n.expect(commit{o.id})
	if got := <-done; got != (result{true, nil}) {
		t.Fatalf("offer: %+v", got)
	}
	door.Close()
	until(t, "the answers are counted", func() bool { return d.Stats().Stray == 2 })
	talk(t, client, conn)
}

func TestAnswersComeInAnyOrder(t *testing.T) {
	d := start(t, &Server{}, "b")
	n := d.join(t, "b")
	var dones [8]<-chan result
	var ids [len(dones)]uint64
	for i := range dones {
		dones[i] = d.offer(t, offerOf("b", doorOf(t)))
		o, _ := n.offered()
		ids[i] = o.id
	}
	for i := len(dones) - 1; i >= 0; i-- {
		if i%2 == 1 {
			n.say(refuse{ids[i], "odd"})
		} else {
			n.say(accept{ids[i]})
			n.expect(commit{ids[i]})
		}
		if got := <-dones[i]; got.granted != (i%2 == 0) {
			t.Errorf("offer %d: %+v", i, got)
		}
	}
}

func TestAClientThatHasGone(t *testing.T) {
	d := start(t, &Server{}, "b")
	n := d.join(t, "b")
	o := offerOf("b", doorOf(t))
	gone := errors.New("connection reset")
	o.Grant = func() error { return gone }
	done := d.offer(t, o)
	got, _ := n.offered()
	n.say(accept{got.id})
	n.expect(cancel{got.id})
	if got := <-done; !got.granted || !errors.Is(got.err, ErrGrant) || !errors.Is(got.err, gone) {
		t.Errorf("offer: %+v", got)
	}
}

// The client was told yes, and then the node died before it was told that the
// connection is its own: the caller has it, and knows that yes was said.
func TestANodeThatDiesBeforeTheCommit(t *testing.T) {
	d := start(t, &Server{}, "b")
	n := d.join(t, "b")
	client, door := pair(t, "tcp4")
	o := offerOf("b", door)
	o.Grant = func() error {
		n.conn.Close()
		until(t, "the daemon has seen it", func() bool { return !d.Takes("b") })
		return nil
	}
	done := d.offer(t, o)
	got, conn := n.offered()
	n.say(accept{got.id})
	if got := <-done; !got.granted || !errors.Is(got.err, ErrGone) {
		t.Errorf("offer: %+v", got)
	}
	conn.Close()
	talk(t, client, door)
}

func TestAnOfferThatIsWithdrawn(t *testing.T) {
	d := start(t, &Server{AcceptTimeout: patience}, "b")
	n := d.join(t, "b")
	ctx, cancelOffer := context.WithCancelCause(t.Context())
	why := errors.New("dropped by the operator")
	done := make(chan error, 1)
	door := doorOf(t)
	go func() {
		_, err := d.Offer(ctx, offerOf("b", door))
		done <- err
	}()
	o, _ := n.offered()
	cancelOffer(why)
	n.expect(cancel{o.id})
	wantError(t, <-done, why)

	// That was not the node's fault: it is asked again.
	again := d.offer(t, offerOf("b", door))
	take(n)
	if got := <-again; got.err != nil {
		t.Error(got.err)
	}
}

func TestAReceiverThatReadsNothing(t *testing.T) {
	d := start(t, &Server{AcceptTimeout: 100 * time.Millisecond}, "b")
	d.join(t, "b")
	door := doorOf(t)
	o := offerOf("b", door)
	o.Taken = make([]byte, MaxTaken)
	// More than the socket has room for, at once.
	var dones [16]<-chan result
	started := time.Now()
	for i := range dones {
		dones[i] = d.offer(t, o)
	}
	for _, done := range dones {
		got := <-done
		if got.granted || got.err == nil {
			t.Errorf("offer: %+v", got)
		}
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("it took %v to find out", took)
	}
	// It could not even be told that the offers are void.
	until(t, "the receiver is given up", func() bool { return !d.Takes("b") })
}

func TestOpenOffersAreBounded(t *testing.T) {
	d := start(t, &Server{AcceptTimeout: patience}, "b")
	n := d.join(t, "b")
	var dones [maxOpen]<-chan result
	door := doorOf(t)
	for i := range dones {
		dones[i] = d.offer(t, offerOf("b", door))
		_, conn := n.offered()
		conn.Close()
	}
	got := <-d.offer(t, offerOf("b", door))
	wantError(t, got.err, ErrBusy)
	n.conn.Close()
	for _, done := range dones {
		wantError(t, (<-done).err, ErrGone)
	}
}

func TestOffersThatNoFrameCanCarry(t *testing.T) {
	d := start(t, &Server{}, "b")
	n := d.join(t, "b")
	door := doorOf(t)
	for name, change := range map[string]func(*Offer){
		"taken too much": func(o *Offer) { o.Taken = make([]byte, MaxTaken+1) },
		"no address":     func(o *Offer) { o.Peer = netip.AddrPort{} },
		"no protocol":    func(o *Offer) { o.Protocol = "" },
		"long protocol":  func(o *Offer) { o.Protocol = strings.Repeat("x", 256) },
	} {
		o := offerOf("b", door)
		change(&o)
		if _, err := d.Offer(t.Context(), o); err == nil {
			t.Errorf("%s: offered", name)
		}
	}
	if _, err := d.Offer(t.Context(), offerOf("c", door)); err != ErrNoReceiver {
		t.Errorf("a node without a receiver: error %v", err)
	}
	// The longest one does fit.
	o := offerOf("b", door)
	o.Taken = bytes.Repeat([]byte("x"), MaxTaken)
	o.Protocol = strings.Repeat("x", 255)
	done := d.offer(t, o)
	got, _ := n.offered()
	if len(got.taken) != MaxTaken {
		t.Errorf("%d bytes came", len(got.taken))
	}
	n.say(refuse{got.id, ""})
	<-done
}

func TestTwoHundredClientsOfTwentyNodes(t *testing.T) {
	const nodes, clients = 20, 200
	names := make([]string, nodes)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i)
	}
	d := start(t, &Server{AcceptTimeout: patience}, names...)
	var group sync.WaitGroup
	for i, name := range names {
		n := d.join(t, name)
		group.Go(func() { serveClients(n, clients/nodes, i) })
	}
	for i := range clients {
		client, door := pair(t, "tcp4")
		group.Go(func() {
			granted, err := d.Offer(t.Context(), offerOf(names[i%nodes], door))
			if refused := i%nodes%2 == 1; granted == refused || (err == nil) == refused {
				t.Errorf("client %d: granted %v, error %v", i, granted, err)
				return
			}
			if err != nil {
				io.WriteString(door, names[i%nodes]) // the relay's part
			}
			door.Close()
			if got, err := io.ReadAll(client); err != nil || string(got) != names[i%nodes] {
				t.Errorf("client %d: read %q, error %v", i, got, err)
			}
		})
	}
	group.Wait()
}

// serveClients takes connections, or refuses them if which is odd, and answers
// with the node's name.
func serveClients(n *node, clients, which int) {
	held := map[uint64]*net.TCPConn{}
	for done := 0; done < clients; {
		f, conn := n.hear()
		switch f := f.(type) {
		case offer:
			if which%2 == 1 {
				conn.Close()
				n.say(refuse{f.id, "odd"})
				done++
				continue
			}
			held[f.id] = conn
			n.say(accept{f.id})
		case commit:
			fmt.Fprintf(held[f.id], "n%d", which)
			held[f.id].Close()
			done++
		default:
			n.t.Errorf("the daemon says %#v", f)
			return
		}
	}
}

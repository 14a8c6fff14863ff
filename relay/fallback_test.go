package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A socket that cannot splice is refused with EINVAL, and so is a pipe that is
// none: with one in the cache, the first byte finds out, and is copied.
func TestRefusedSpliceFallsBackToCopy(t *testing.T) {
	spoilPipes(t)
	client, clientSide := loopback(t)
	nodeSide, node := loopback(t)
	var paths []Path
	done := make(chan Result, 1)
	go func() {
		done <- Join(context.Background(), clientSide, nodeSide, Options{
			OnPath: func(path Path, _ string) { paths = append(paths, path) },
		})
	}()
	want := []byte("not a byte is lost")
	if _, err := client.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(node)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the node got %q, %v; want %q", got, err, want)
	}
	node.Close()
	client.Close()
	result := <-done
	if result.Path != Copy || result.Why != "splice: "+errNoSplice.Error() || result.Reason != Finished {
		t.Errorf("result: %+v", result)
	}
	if len(paths) != 2 || paths[0] != Splice || paths[1] != Copy {
		t.Errorf("OnPath was told %v, want splice, then copy", paths)
	}
}

// Where nothing but splice will do, it resets both ends instead.
func TestRefusedSpliceEndsARelayThatIsToSplice(t *testing.T) {
	spoilPipes(t)
	client, clientSide := loopback(t)
	defer client.Close()
	nodeSide, node := loopback(t)
	defer node.Close()
	done := make(chan Result, 1)
	Start(t.Context(), clientSide, nodeSide, Options{Only: Splice}, func(r Result) { done <- r })
	// One of the two directions finds out, maybe before there is a byte to move.
	for _, end := range []*net.TCPConn{node, client} {
		if _, err := end.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("an end sees %v, not a reset", err)
		}
	}
	if r := <-done; r.Reason != Impossible || r.Path != Splice || r.Err == nil || r.Err.Error() != "splice: "+errNoSplice.Error() {
		t.Errorf("result: %+v", r)
	}
}

// spoilPipes has the next relay take a pipe that is none.
func spoilPipes(t *testing.T) {
	t.Helper()
	devnull := func() int {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	pipes.open()
	t.Cleanup(pipes.close)
	pipes.put(&pipe{r: devnull(), w: devnull()})
}

func loopback(t *testing.T) (dialed, accepted *net.TCPConn) {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if dialed, err = net.DialTCP("tcp4", nil, listener.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if accepted, err = listener.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	return dialed, accepted
}

package loader_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"oneport/loader"
)

// By these environment variables a test starts its own binary as another process,
// and says what to do with what, and where to say that it is done.
const (
	childVariable    = "ONEPORT_TEST_CHILD"
	argumentVariable = "ONEPORT_TEST_ARGUMENT"
	readyVariable    = "ONEPORT_TEST_READY"
)

// child does its task and ends the process.
func child() {
	argument := os.Getenv(argumentVariable)
	var err error
	stay := false
	switch task := os.Getenv(childVariable); task {
	case "hold":
		stay = true
	case "load and pair":
		stay = true
		err = childPairs(argument)
	case "load", "load, drop, pair":
		err = childLoads(strings.Split(argument, ","), task != "load")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fd, err := strconv.Atoi(os.Getenv(readyVariable))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.NewFile(uintptr(fd), "ready").Write([]byte("."))
	if stay {
		time.Sleep(10 * time.Minute) // the test kills this process long before
	}
	fmt.Println("ok")
	os.Exit(0)
}

// childPairs pairs the sockets 3 and 4 with pins, and closes them.
func childPairs(pins string) error {
	l, err := loader.Load(loader.Options{Pins: pins, Settle: time.Nanosecond})
	if err != nil {
		return err
	}
	var conns [2]*net.TCPConn
	for i := range conns {
		f := file(3 + i)
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn.(*net.TCPConn)
	}
	_, err = l.Pair(conns[0], conns[1])
	return err
}

// childLoads loads with nothing but the named capabilities, and pairs with none.
func childLoads(names []string, pairs bool) error {
	bits := map[string]int{"CAP_BPF": unix.CAP_BPF, "CAP_PERFMON": unix.CAP_PERFMON, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN}
	var held uint64
	for _, name := range names {
		held |= 1 << bits[name]
	}
	if err := holdOnly(held); err != nil {
		return err
	}
	l, err := loader.Load(loader.Options{Settle: time.Nanosecond})
	if err != nil {
		return err
	}
	defer l.Close()
	if !pairs {
		return nil
	}
	if err := holdOnly(0); err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	a, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := listener.Accept()
	if err != nil {
		return err
	}
	defer b.Close()
	p, err := l.Pair(a.(*net.TCPConn), b.(*net.TCPConn))
	if err != nil {
		return err
	}
	if _, err := a.Write([]byte("x")); err != nil {
		return err
	}
	s, err := p.Status()
	if err != nil {
		return err
	}
	if s.Ways[0].Counts.ShortMessages+s.Ways[1].Counts.ShortMessages != 1 {
		return errors.New("the message went the long way")
	}
	return p.Disable()
}

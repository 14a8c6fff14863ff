// Capture records what real Erlang nodes, OTP's own clients and OTP's daemon
// say to each other, and writes it to standard output:
//
//	go run ./epmd/testdata/capture.go >epmd/testdata/captured.txt
//
// Each line is the name of an exchange, and what each side sent on its one
// connection, in hexadecimal. Ports and creations differ from run to run. It
// needs epmd and erl of OTP 23 or later, and shares no code with package epmd.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait.
const patience = 20 * time.Second

func main() {
	log.SetFlags(0)
	// What is started here ends with this thread, that is, with us.
	runtime.LockOSThread()
	fmt.Println("# Recorded by capture.go: exchange: request response")

	strict := start()
	strict.run("erl -name", func() { strict.node("-name", "long@127.0.0.1").stop() })
	strict.await("long", false)
	var short *node
	strict.run("erl -sname", func() { short = strict.node("-sname", "short") })
	strict.run("erl duplicate", func() { strict.failingNode("short") })
	strict.run("erl_epmd port", func() { strict.eval(`{port, _, _} = erl_epmd:port_please("short", {127,0,0,3})`) })
	strict.run("erl_epmd unknown", func() { strict.eval(`noport = erl_epmd:port_please("nobody", {127,0,0,3})`) })
	strict.run("erl_epmd names", func() { strict.eval(`{ok, [_]} = erl_epmd:names({127,0,0,3})`) })
	strict.run("epmd -names", func() { strict.epmd("-names") })
	strict.run("epmd -dump", func() { strict.epmd("-dump") })
	strict.run("epmd -kill, alive", func() { strict.epmd("-kill") })
	short.stop()
	strict.await("short", false)
	strict.run("epmd -kill", func() { strict.epmd("-kill") })
	strict.end()

	relaxed := start("-relaxed_command_check")
	relaxed.run("erl -hidden", func() { relaxed.node("-hidden", "-sname", "hidden").stop() })
	short = relaxed.node("-sname", "short")
	relaxed.run("epmd -stop", func() { relaxed.epmd("-stop", "short") })
	short.stop()
	relaxed.epmd("-kill")
	relaxed.end()
}

// daemon is OTP's daemon with a recorder before it.
type daemon struct {
	process *exec.Cmd
	address string // of the daemon itself
	// Recorders: one on another port, for those who always ask 127.0.0.1, and
	// one on the daemon's port of another address, for erl_epmd:names/1, which
	// wants to be told the port that it asked at.
	otherPort, otherAddress net.Listener

	mu        sync.Mutex
	exchanges []*exchange
}

// exchange is one connection. Its buffers may be read when done is closed.
type exchange struct {
	request, response bytes.Buffer
	answered          chan struct{} // closed when the daemon answered
}

func start(flags ...string) *daemon {
	own, err := net.Listen("tcp4", "127.0.0.1:0")
	check(err)
	address := own.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	check(own.Close())
	d := &daemon{address: address, process: exec.Command("epmd", append(flags, "-address", "127.0.0.1", "-port", port)...)}
	d.process.Stderr = os.Stderr
	d.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(d.process.Start())
	until("the daemon listens", func() bool {
		c, err := net.Dial("tcp4", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	d.otherPort = d.recorder("127.0.0.1:0")
	d.otherAddress = d.recorder("127.0.0.3:" + port)
	return d
}

func (d *daemon) recorder(address string) net.Listener {
	l, err := net.Listen("tcp4", address)
	check(err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.record(c)
		}
	}()
	return l
}

func (d *daemon) record(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp4", d.address)
	check(err)
	defer server.Close()
	e := &exchange{answered: make(chan struct{})}
	d.mu.Lock()
	d.exchanges = append(d.exchanges, e)
	d.mu.Unlock()
	go func() {
		io.Copy(io.MultiWriter(server, &e.request), client)
		server.Close()
	}()
	// An answer may come in parts, and only some of them end in a close.
	b := make([]byte, 1<<16)
	var once sync.Once
	for {
		n, err := server.Read(b)
		e.response.Write(b[:n])
		client.Write(b[:n])
		if err != nil || n > 0 && (b[0] == 'v' || b[0] == 'y') {
			once.Do(func() { close(e.answered) })
		}
		if err != nil {
			return
		}
	}
}

// run does something that makes one connection, and prints what was said on
// it.
func (d *daemon) run(name string, do func()) {
	d.mu.Lock()
	before := len(d.exchanges)
	d.mu.Unlock()
	do()
	d.mu.Lock()
	defer d.mu.Unlock()
	if made := len(d.exchanges) - before; made != 1 {
		log.Fatalf("%s: made %d connections, not 1", name, made)
	}
	e := d.exchanges[before]
	select {
	case <-e.answered:
	case <-time.After(patience):
		log.Fatalf("%s: no answer", name)
	}
	fmt.Printf("%s: %x %x\n", name, e.request.Bytes(), e.response.Bytes())
}

func (d *daemon) end() {
	check(d.process.Wait())
	check(d.otherPort.Close())
	check(d.otherAddress.Close())
}

// await waits until a name is registered, or is not.
func (d *daemon) await(name string, registered bool) {
	until(fmt.Sprintf("%s is registered: %t", name, registered), func() bool {
		c, err := net.Dial("tcp4", d.address)
		check(err)
		defer c.Close()
		_, err = c.Write([]byte("\x00\x01n"))
		check(err)
		list, err := io.ReadAll(c)
		check(err)
		return bytes.Contains(list, []byte("name "+name+" at port ")) == registered
	})
}

// command is a command of OTP that takes a recorder's port for the daemon's.
func (d *daemon) command(recorder net.Listener, name string, args ...string) *exec.Cmd {
	_, port, _ := net.SplitHostPort(recorder.Addr().String())
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "ERL_EPMD_PORT="+port, "LANG=C.UTF-8", "LC_ALL=C.UTF-8")
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func (d *daemon) epmd(args ...string) {
	// It exits with 1 for a refusal, which is to be recorded, too.
	d.command(d.otherPort, "epmd", args...).Run()
}

func (d *daemon) eval(expression string) {
	check(d.command(d.otherAddress, "erl", "-noshell", "-eval", expression+", halt().").Run())
}

func (d *daemon) failingNode(name string) {
	c := d.command(d.otherPort, "erl", "-noshell", "-start_epmd", "false", "-sname", name, "-eval", "halt().")
	c.Stderr = nil
	if c.Run() == nil {
		log.Fatalf("a second node %s was registered", name)
	}
}

// node is a running Erlang node, which ends with its standard input.
type node struct {
	process *exec.Cmd
	input   io.Closer
}

// node starts a node and returns when it is registered.
func (d *daemon) node(args ...string) *node {
	c := d.command(d.otherPort, "erl", append(args, "-noinput", "-start_epmd", "false", "-eval",
		`P = open_port({fd, 0, 1}, [eof]), io:format(user, "up~n", []), receive {P, eof} -> halt() end.`)...)
	input, err := c.StdinPipe()
	check(err)
	output, err := c.StdoutPipe()
	check(err)
	check(c.Start())
	if _, err := output.Read(make([]byte, 1)); err != nil {
		log.Fatalf("erl %v: no output: %v", args, err)
	}
	return &node{c, input}
}

func (n *node) stop() {
	check(n.input.Close())
	check(n.process.Wait())
}

func until(what string, condition func() bool) {
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			log.Fatalf("waited too long until %s", what)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

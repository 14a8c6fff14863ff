package hosts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oneport/internal/leak"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestFirewallLetsOnePortIn(t *testing.T) {
	hosts := New(t, "alpha", "beta")
	alpha, beta := hosts[0], hosts[1]
	for _, address := range []netip.Addr{beta.IPv4, beta.IPv6} {
		open := listen(t, beta, netip.AddrPortFrom(address, Port))
		closed := listen(t, beta, netip.AddrPortFrom(address, Port+1))
		if err := greet(t, alpha, open, deadline); err != nil {
			t.Errorf("the open port: %v", err)
		}
		var dropped net.Error
		if err := greet(t, alpha, closed, 500*time.Millisecond); !errors.As(err, &dropped) || !dropped.Timeout() {
			t.Errorf("the closed port: %v, want a time-out", err)
		}
		// It is the firewall that keeps others out, and only others.
		if err := greet(t, beta, closed, deadline); err != nil {
			t.Errorf("the closed port from its own host: %v", err)
		}
	}
}

// listen answers connections inside a host with one byte each.
func listen(t *testing.T, h *Host, address netip.AddrPort) netip.AddrPort {
	t.Helper()
	listener, err := h.Listen(t.Context(), "tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	server.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte{1})
			conn.Close()
		}
	})
	t.Cleanup(func() {
		listener.Close()
		server.Wait()
	})
	return address
}

// greet dials from inside a host and reads the byte.
func greet(t *testing.T, from *Host, to netip.AddrPort, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestHostsAreApartFromTheMachine(t *testing.T) {
	alpha := New(t, "alpha")[0]
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	conn, err := alpha.Dial(ctx, "tcp4", listener.Addr().String())
	if err == nil {
		conn.Close()
		t.Fatal("a host reaches the machine's loopback")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialing a port that is free in the host: %v", err)
	}
}

func TestCommandKnowsItsHostAndTheOthers(t *testing.T) {
	hosts := New(t, "alpha", "beta")
	alpha, beta := hosts[0], hosts[1]
	for _, test := range []struct{ command, want string }{
		{"hostname", "alpha"},
		{"hostname -f", alpha.FQDN},
		{"pwd", alpha.Dir},
		{"getent ahostsv4 beta", beta.IPv4.String()},
		{"getent ahostsv6 " + beta.FQDN, beta.IPv6.String()},
		{"ip -brief link show eth0", "UP"},
		{"ip -brief link show lo", "UNKNOWN"},
	} {
		fields := strings.Fields(test.command)
		output, err := alpha.Command(t.Context(), fields[0], fields[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(output), test.want) {
			t.Errorf("%s: %v, want %q in\n%s", test.command, err, test.want, output)
		}
	}
}

func TestAddedAddressIsReached(t *testing.T) {
	hosts := New(t, "alpha", "beta")
	alpha, beta := hosts[0], hosts[1]
	for _, address := range []string{"10.9.0.99", "fd09::99"} {
		more := netip.MustParseAddr(address)
		beta.AddAddress(t, more)
		if err := greet(t, alpha, listen(t, beta, netip.AddrPortFrom(more, Port)), deadline); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestNodesRunAndEvaluate(t *testing.T) {
	alpha := New(t, "alpha")[0]
	startEPMD(t, alpha)
	node := alpha.Erl(t, "a")
	other := alpha.Erl(t, "b", Hidden(), Args("-extra", "more"), Env("GREETING=hello"))
	for _, test := range []struct{ expressions, want string }{
		{"1 + 1", "2"},
		{"X = 20, X * 2.", "40"},
		{`{ok, "text", <<"bytes">>, 'Ünï'}`, `{ok,"text",<<"bytes">>,'Ünï'}`},
		{"net_adm:ping('" + other.Name + "')", "pong"},
		{"nodes()", "[]"},
		{"nodes(hidden)", "['" + other.Name + "']"},
	} {
		if got := node.Eval(t, test.expressions); got != test.want {
			t.Errorf("%s is %s, want %s", test.expressions, got, test.want)
		}
	}
	if got := other.Eval(t, `{os:getenv("GREETING"), init:get_plain_arguments()}`); got != `{"hello",["more"]}` {
		t.Errorf("environment and arguments are %s", got)
	}
	if _, err := node.Call(t.Context(), "error(oops)"); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("an error in the node: %v", err)
	}
	if _, err := node.Call(t.Context(), "this is no Erlang"); err == nil {
		t.Error("nonsense was evaluated")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := node.Call(ctx, "timer:sleep(infinity)"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an endless call: %v", err)
	}
	// Forty calls that wait for each other can only run side by side.
	var calls sync.WaitGroup
	node.Eval(t, `register(meet, spawn(fun() ->
		All = [receive {here, P} -> P end || _ <- lists:seq(1, 40)],
		[P ! go || P <- All] end))`)
	for range 40 {
		calls.Go(func() {
			if got, err := node.Call(t.Context(), "meet ! {here, self()}, receive go -> met end"); got != "met" {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	calls.Wait()
	node.Stop(t)
	other.Kill()
	var exit *exec.ExitError
	if err := other.Wait(t.Context()); !errors.As(err, &exit) {
		t.Errorf("a killed node ended with %v", err)
	}
	if _, err := other.Call(t.Context(), "1"); err == nil {
		t.Error("a killed node answers")
	}
}

func TestNodesAreNamedAsTheirHostIs(t *testing.T) {
	hosts := New(t, "alpha", "beta")
	for _, h := range hosts {
		startEPMD(t, h)
	}
	h := hosts[0]
	for _, test := range []struct {
		host    string
		options []Option
	}{
		{"10.9.0.1", nil},
		{"alpha.oneport.test", []Option{LongName(h.FQDN)}},
		{"alpha", []Option{ShortName()}},
		{"fd09::1", []Option{LongName(h.IPv6.String()), ProtoDist("inet6_tcp")}},
	} {
		t.Run(test.host, func(t *testing.T) {
			node := h.Erl(t, "a", test.options...)
			if want := "a@" + test.host; node.Name != want {
				t.Errorf("the node's name is %s, want %s", node.Name, want)
			}
			other := h.Erl(t, "b", test.options...)
			if got := node.Eval(t, "net_adm:ping('"+other.Name+"')"); got != "pong" {
				t.Errorf("ping says %s", got)
			}
		})
	}
	t.Run("behind the firewall", func(t *testing.T) {
		// EPMD answers, and names a port that is closed: what oneport is for.
		node, other := hosts[0].Erl(t, "a"), hosts[1].Erl(t, "b")
		if got := node.Eval(t, `element(1, erl_epmd:port_please("b", {10,9,0,2}))`); got != "port" {
			t.Errorf("asking EPMD says %s", got)
		}
		ping := "net_kernel:connect_node('" + other.Name + "')"
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if got, err := node.Call(ctx, ping); err == nil && got != "false" {
			t.Errorf("connecting past the firewall says %s", got)
		}
	})
}

func TestNodeWithAnotherCookieIsRefused(t *testing.T) {
	alpha := New(t, "alpha")[0]
	startEPMD(t, alpha)
	node, other := alpha.Erl(t, "a"), alpha.Erl(t, "b", Cookie("another"))
	if got := node.Eval(t, "net_adm:ping('"+other.Name+"')"); got != "pang" {
		t.Errorf("ping says %s", got)
	}
}

func TestNodeFindsEPMDAtAnotherPort(t *testing.T) {
	alpha := New(t, "alpha")[0]
	epmd := alpha.Start(t, alpha.Command(context.Background(), "epmd", "-port", "5000", "-debug"))
	waitForPort(t, alpha, epmd, 5000)
	alpha.Erl(t, "a", EPMDPort(5000), CodePath(alpha.Dir))
	epmd.WaitOutput(t, "registering 'a:")
}

// startEPMD runs OTP's epmd in a host.
func startEPMD(t *testing.T, h *Host) {
	t.Helper()
	waitForPort(t, h, h.Start(t, h.Command(context.Background(), "epmd")), Port)
}

func waitForPort(t *testing.T, h *Host, p *Process, port uint16) {
	t.Helper()
	waitFor(t, p, fmt.Sprintf("port %d", port), func() bool {
		conn, err := h.Dial(t.Context(), "tcp4", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func TestNothingIsLeft(t *testing.T) {
	var dirs []string
	spaces := make(map[string]bool)
	t.Run("a test with nodes", func(t *testing.T) {
		for _, h := range New(t, "alpha", "beta") {
			startEPMD(t, h)
			h.Erl(t, "a")
			dirs = append(dirs, h.Dir)
			spaces[namespaceOf(t, "fd/"+strconv.Itoa(h.spaces.net))] = true
		}
		if users := processesIn(t, spaces); len(users) < 4 {
			t.Fatalf("only %v run in the hosts: this test sees nothing", users)
		}
	})
	expectNothing(t, spaces, dirs)
}

func namespaceOf(t *testing.T, link string) string {
	t.Helper()
	name, err := os.Readlink("/proc/self/" + link)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// processesIn lists the processes in given network namespaces.
func processesIn(t *testing.T, spaces map[string]bool) (pids []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if space, err := os.Readlink(link); err == nil && spaces[space] {
			pids = append(pids, strings.Split(link, "/")[2])
		}
	}
	return pids
}

func expectNothing(t *testing.T, spaces map[string]bool, dirs []string) {
	t.Helper()
	var users []string
	for end := time.Now().Add(deadline); ; time.Sleep(poll) {
		if users = processesIn(t, spaces); len(users) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("processes %v are left", users)
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("directory %s is left (%v)", dir, err)
		}
	}
	if _, err := os.Stat("/run/netns/alpha"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named network namespace is left (%v)", err)
	}
}

// toBeKilled names the environment variable by which the test below starts
// this binary again.
const toBeKilled = "ONEPORT_HOSTS_TO_BE_KILLED"

// TestToBeKilled makes a host with a node, says where, and waits to be killed.
// On its own it does nothing.
func TestToBeKilled(t *testing.T) {
	if os.Getenv(toBeKilled) == "" {
		return
	}
	alpha := New(t, "alpha")[0]
	startEPMD(t, alpha)
	alpha.Erl(t, "a")
	fmt.Println(namespaceOf(t, "fd/"+strconv.Itoa(alpha.spaces.net)), alpha.Dir)
	io.Copy(io.Discard, os.Stdin)
}

func TestKilledTestLeavesNothing(t *testing.T) {
	command := exec.Command(os.Args[0], "-test.run=^TestToBeKilled$")
	command.Env = append(os.Environ(), toBeKilled+"=1")
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	command.Process.Kill()
	if waitErr := command.Wait(); err != nil {
		t.Fatalf("the test to be killed says nothing: %v, %v", err, waitErr)
	}
	fields := strings.Fields(line)
	// Its directory is left to the next test.
	New(t, "alpha")
	expectNothing(t, map[string]bool{fields[0]: true}, fields[1:])
}

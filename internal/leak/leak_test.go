package leak

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// offence names the environment variable by which a test starts this binary
// again as a test run that misbehaves.
const offence = "ONEPORT_LEAK_OFFENCE"

// TestOffender is the run that misbehaves. On its own it does nothing.
func TestOffender(t *testing.T) {
	switch os.Getenv(offence) {
	case "descriptor":
		leakDescriptor(t)
	case "goroutine":
		leakGoroutine()
	case "checked descriptor":
		t.Run("inner", func(t *testing.T) {
			Check(t)
			leakDescriptor(t)
		})
	case "spliced":
		splice(t)
	case "late":
		listener := leakDescriptor(t)
		time.AfterFunc(200*time.Millisecond, func() { listener.Close() })
	}
}

func leakDescriptor(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// splice moves a byte from one TCP connection to another, for which package
// net opens a pipe that it keeps.
func splice(t *testing.T) {
	t.Helper()
	listener := leakDescriptor(t)
	defer listener.Close()
	var ends [4]net.Conn
	for i := 0; i < len(ends); i += 2 {
		var err error
		if ends[i], err = net.Dial("tcp", listener.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
		if ends[i+1], err = listener.Accept(); err != nil {
			t.Fatal(err)
		}
		defer ends[i+1].Close()
	}
	if _, err := ends[0].Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(ends[2], ends[1], 1); err != nil {
		t.Fatal(err)
	}
}

func leakGoroutine() {
	go func() { <-make(chan struct{}) }()
}

func TestLeaksFailTheRun(t *testing.T) {
	tests := []struct {
		offence string
		want    string // in the output; empty means the run passes
	}{
		{"descriptor", "leak: descriptor "},
		{"goroutine", "leak.leakGoroutine"},
		{"checked descriptor", "--- FAIL: TestOffender/inner"},
		{"late", ""},
		{"spliced", ""},
		{"nothing", ""},
	}
	// All at once, since a run that leaks takes its full patience.
	runs := make([]*exec.Cmd, len(tests))
	outputs := make([]bytes.Buffer, len(tests))
	for i, test := range tests {
		runs[i] = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOffender$")
		runs[i].Env = append(os.Environ(), offence+"="+test.offence)
		runs[i].Stdout, runs[i].Stderr = &outputs[i], &outputs[i]
		if err := runs[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i, test := range tests {
		t.Run(test.offence, func(t *testing.T) {
			err, output := runs[i].Wait(), outputs[i].String()
			switch {
			case test.want == "" && err != nil:
				t.Errorf("a run that leaks nothing failed: %v\n%s", err, output)
			case test.want != "" && err == nil:
				t.Errorf("a run that leaks passed:\n%s", output)
			case !strings.Contains(output, test.want):
				t.Errorf("output does not contain %q:\n%s", test.want, output)
			}
		})
	}
}

func TestReportNamesTheSocket(t *testing.T) {
	before := look()
	listener := leakDescriptor(t)
	defer listener.Close()
	now := look()
	now.subtract(before)
	if len(now.descriptors) != 1 {
		t.Fatalf("one socket opened, found %v", now.descriptors)
	}
	for _, target := range now.descriptors {
		if !strings.HasPrefix(target, "socket:[") {
			t.Errorf("the target of a socket is %q", target)
		}
	}
}

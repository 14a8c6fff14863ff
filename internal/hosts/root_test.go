package hosts

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The machine's own files serve as another system's.
func TestRootIsWrittenToByItsHostOnly(t *testing.T) {
	hosts := New(t, "alpha", "beta")
	written := filepath.Join("/etc", filepath.Base(hosts[0].Dir))
	alpha, beta := hosts[0].Root(t, "/"), hosts[1].Root(t, "/")
	run := func(r *Root, name string, args ...string) string {
		t.Helper()
		output, err := r.Command(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, output)
		}
		return strings.TrimSpace(string(output))
	}
	run(alpha, "touch", written)
	if got := run(alpha, "ls", written); got != written {
		t.Errorf("the host has written %s, and sees %q", written, got)
	}
	if output, err := beta.Command(t.Context(), "ls", written).CombinedOutput(); err == nil {
		t.Errorf("the other host sees it: %s", output)
	}
	if _, err := os.Stat(written); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("on the machine: %v", err)
	}
	if got := run(alpha, "hostname"); got != "alpha" {
		t.Errorf("the host is called %s inside", got)
	}
	if got := run(beta, "getent", "ahostsv4", "alpha"); !strings.Contains(got, hosts[0].IPv4.String()) {
		t.Errorf("alpha is %q inside", got)
	}
}

func TestNodeRunsInARoot(t *testing.T) {
	alpha := New(t, "alpha")[0]
	startEPMD(t, alpha)
	root := alpha.Root(t, "/")
	inside, outside := alpha.Erl(t, "a", In(root)), alpha.Erl(t, "b")
	if got := outside.Eval(t, "net_adm:ping('"+inside.Name+"')"); got != "pong" {
		t.Errorf("ping says %s", got)
	}
	inside.Eval(t, `ok = file:write_file("/etc/written-by-a-node", "")`)
	if _, err := os.Stat("/etc/written-by-a-node"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the node has written is on the machine: %v", err)
	}
	if _, err := os.Stat(root.Path("/etc")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the files are laid open outside of the host: %v", err)
	}
}

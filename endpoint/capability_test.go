package endpoint

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"oneport/internal/hosts"
)

// With exactly the capabilities that the documentation names the node of another
// user is found; with one missing, the error says which.
func TestCapabilities(t *testing.T) {
	needInodes(t)
	h := world(t)
	user := "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --"
	here := listen(t, "tcp4")
	start(t, h, append(strings.Fields(user), erl(connects(here, ""))...))
	_, nearLocal, nearRemote := accept(t, here)
	there, err := h.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	command := h.Command(context.Background(), "setpriv", append(strings.Fields(user)[1:], erl(connects(there, ""))...)...)
	command.Env = append(os.Environ(), "HOME=/")
	h.Start(t, command)
	_, farLocal, farRemote := accept(t, there)
	for _, c := range []struct {
		held          string
		local, remote netip.AddrPort
		want          string
		warnings      int
	}{
		{"-all,+sys_ptrace", nearLocal, nearRemote, "found:", 0},
		{"-all", nearLocal, nearRemote, "CAP_SYS_PTRACE missing", 1},
		{"-all,+sys_ptrace,+sys_admin", farLocal, farRemote, "found:", 0},
		{"-all,+sys_ptrace", farLocal, farRemote, "CAP_SYS_ADMIN missing", 1},
	} {
		output := find(t, h, c.held, c.local, c.remote)
		if strings.Count(output, "level=warning") != c.warnings {
			t.Errorf("with %s: want %d warnings:\n%s", c.held, c.warnings, output)
		}
		if strings.Contains(output, "missing: CAP_") {
			t.Errorf("with %s: said twice in one error:\n%s", c.held, output)
		}
		answers := 0
		for line := range strings.Lines(output) {
			if !strings.HasPrefix(line, "time=") && strings.Contains(line, c.want) {
				answers++
			}
		}
		if answers != 2 {
			t.Errorf("with %s: want %q twice:\n%s", c.held, c.want, output)
		}
		for capability, name := range map[string]string{"CAP_SYS_PTRACE": "sys_ptrace", "CAP_SYS_ADMIN": "sys_admin"} {
			want := fmt.Sprintf("%s: %v\n", capability, strings.Contains(c.held, name))
			if !strings.Contains(output, want) {
				t.Errorf("with %s: want %q:\n%s", c.held, want, output)
			}
		}
		for _, requirement := range []string{"socket diagnosis", "pidfd_getfd"} {
			if !strings.Contains(output, requirement+": true\n") {
				t.Errorf("with %s: %s is not met:\n%s", c.held, requirement, output)
			}
		}
	}
}

// find looks for an end in a process of root's that holds these capabilities, and
// returns what it prints.
func find(t *testing.T, h *hosts.Host, held string, local, remote netip.AddrPort) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "setpriv", "--bounding-set="+held, self)
	c.Env = append(os.Environ(), fmt.Sprintf("%s=find %s %s", childVariable, local, remote),
		"GORACE=atexit_sleep_ms=0") // the race detector makes a process end late
	p := h.Start(t, c)
	if err := p.Wait(ctx); err != nil {
		t.Fatalf("with %s: %v\n%s", held, err, p.Output())
	}
	return p.Output()
}

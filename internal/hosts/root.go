package hosts

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

// Root is another system's files as a host sees them: what is written there is
// the host's own, and gone after the test.
type Root struct {
	host *Host
	path string // as the host's commands see it
}

// Root lays the directory of a whole system, such as debootstrap makes, open for
// the host's commands. The host's Dir has the same path inside. It is written to
// in memory only. To be called once for a directory and host.
func (h *Host) Root(t testing.TB, dir string) *Root {
	t.Helper()
	r := &Root{host: h, path: filepath.Join(h.Dir, "root-"+filepath.Base(dir))}
	// The mounts are those of the host's mount namespace, and end with it.
	command := h.Command(t.Context(), "sh", "-euc", `
		mkdir "$1"
		mount -t tmpfs root "$1"
		mkdir "$1/upper" "$1/work"
		chmod 755 "$1/upper"
		mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" root "$1"
		mkdir -p "$1$3"
		touch "$1/etc/hosts" "$1/etc/nsswitch.conf"
		for shared in /dev /proc /etc/hosts /etc/nsswitch.conf "$3"; do
			mount --bind "$shared" "$1$shared"
		done
		mount -t tmpfs run "$1/run"
		echo "$4" >"$1/etc/hostname"`, "sh", r.path, dir, h.Dir, h.Name)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("host %s: laying %s open: %v\n%s", h.Name, dir, err, output)
	}
	return r
}

// Command is Host.Command in these files. It starts in their topmost directory.
func (r *Root) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return r.host.Command(ctx, "chroot", append([]string{r.path, name}, args...)...)
}

// In makes a node run in other files than the machine's, with the Erlang that is
// there.
func In(r *Root) Option { return func(c *nodeConfig) { c.root = r } }

// erl is erl on a host, in these files. A nil Root is the machine's own.
func (r *Root) erl(h *Host, args []string) *exec.Cmd {
	if r == nil {
		return h.Command(context.Background(), "erl", args...)
	}
	return r.Command(context.Background(), "erl", args...)
}

// Path is the path outside, for the host's commands, of a path in these files.
func (r *Root) Path(inside string) string { return fmt.Sprint(r.path, inside) }

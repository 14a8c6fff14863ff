package interop

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"oneport/internal/hosts"
)

// release is one release of Erlang/OTP.
type release struct {
	number  string // such as "25"
	dir     string // the root that it is in; empty: the machine's own
	version string // such as "25.2.3", and of its package
}

// receives says whether this release takes connections by descriptor. One that
// does not has a listener with every carrier.
func (r release) receives() bool { return r.number != "23" }

// suite is the Debian that the release is from.
func (r release) suite() string {
	if _, suite, ok := strings.Cut(filepath.Base(r.dir), "-"); ok {
		return suite
	}
	text, _ := os.ReadFile("/etc/os-release")
	_, name, _ := strings.Cut(string(text), "\nVERSION_CODENAME=")
	name, _, _ = strings.Cut(name, "\n")
	return name
}

// near says whether OTP promises that two releases can talk to each other, as it
// does for two releases in either direction (Erlang System Documentation,
// "Support, Compatibility, Deprecations, and Removal").
func (r release) near(t *testing.T, other release) bool {
	t.Helper()
	mine, err := strconv.Atoi(r.number)
	if err != nil {
		t.Fatal(err)
	}
	its, err := strconv.Atoi(other.number)
	if err != nil {
		t.Fatal(err)
	}
	return mine-its <= 2 && its-mine <= 2
}

// findReleases finds the releases with the given numbers: on the machine, or
// else in a root, which is made if there is none.
func findReleases(t *testing.T, numbers []string) (releases []release) {
	t.Helper()
	own := ownRelease(t)
	if len(numbers) == 0 {
		numbers = []string{own}
	}
	for _, number := range numbers {
		r := release{number: number}
		if number != own {
			r.dir = makeRoot(t, number)
		}
		r.version = version(t, r.dir)
		if found, _, _ := strings.Cut(r.version, "."); found != number {
			t.Fatalf("%s has OTP %s, not %s: remove it if Debian has another one now", r.dir, r.version, number)
		}
		releases = append(releases, r)
	}
	return releases
}

// ownRelease is the number of the release on the machine.
func ownRelease(t *testing.T) string {
	t.Helper()
	number, _, _ := strings.Cut(version(t, ""), ".")
	return number
}

// version says which OTP is in a root, and which package has it.
func version(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(dir + "/usr/lib/erlang/releases/*/OTP_VERSION")
	if err != nil || len(files) != 1 {
		t.Fatalf("one release of OTP in %s/usr/lib/erlang: %v, %v", dir, files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text)) + " (erlang-base " + packageVersion(t, dir, "erlang-base") + ")"
}

// packageVersion is the version of a Debian package in a root.
func packageVersion(t *testing.T, dir, name string) string {
	t.Helper()
	output, err := exec.Command("dpkg-query", "--admindir="+dir+"/var/lib/dpkg", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		t.Fatalf("the version of %s in %s/: %v", name, dir, err)
	}
	return string(output)
}

// makeRoot returns the root of a name that roots.sh knows.
func makeRoot(t *testing.T, name string) string {
	t.Helper()
	output, err := exec.Command("./roots.sh", name).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("making the root %s: %v\n%s", name, err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(output))
}

// place is a release on a host.
type place struct {
	release
	host  *hosts.Host
	root  *hosts.Root // nil: the machine's own files
	beams string      // the OTP application, as this release compiles it
}

// lay makes a release usable on a host.
func (r release) lay(t *testing.T, h *hosts.Host) *place {
	t.Helper()
	p := &place{release: r, host: h, beams: filepath.Join(h.Dir, "ebin-"+r.number)}
	if r.dir != "" {
		p.root = h.Root(t, r.dir)
	}
	return p
}

// compile compiles the OTP application as whoever uses it would: by the
// release's own compiler. A warning is an error.
func (p *place) compile(t *testing.T) {
	t.Helper()
	source := filepath.Join(p.host.Dir, "src-"+p.number)
	if err := os.CopyFS(source, os.DirFS(filepath.Join(root, "erlang", "src"))); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(source, "*.erl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.beams, 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-Wall", "-Werror", "+debug_info", "-o", p.beams}, files...)
	command := p.host.Command(t.Context(), "erlc", args...)
	if p.root != nil {
		command = p.root.Command(t.Context(), "erlc", args...)
	}
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("compiling with OTP %s: %v\n%s", p.number, err, output)
	}
	// rebar3 and make add the modules, which nothing needs but a release.
	app, err := os.ReadFile(filepath.Join(source, "oneport.app.src"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.beams, "oneport.app"), app, 0o644); err != nil {
		t.Fatal(err)
	}
}

// copyBeams takes what the same release has compiled on another host.
func (p *place) copyBeams(t *testing.T, from *place) {
	t.Helper()
	if err := os.CopyFS(p.beams, os.DirFS(from.beams)); err != nil {
		t.Fatal(err)
	}
}

// erl starts a node of this release that connects to nobody by itself.
func (p *place) erl(t *testing.T, name string, options ...hosts.Option) *hosts.Node {
	t.Helper()
	all := []hosts.Option{hosts.Args("-connect_all", "false")}
	if p.root != nil {
		all = append(all, hosts.In(p.root))
	}
	return p.host.Erl(t, name, append(all, options...)...)
}

// erl6 is erl for a node that is named by its host's IPv6 address.
func (p *place) erl6(t *testing.T, name string, options ...hosts.Option) *hosts.Node {
	t.Helper()
	return p.erl(t, name, append(options, hosts.LongName(p.host.IPv6.String()))...)
}

package interop

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/hosts"
	"oneport/internal/leak"
)

// What to run. Without a flag it is the machine's own release, in a minute.
var (
	releasesFlag = flag.String("otp", "", "releases of OTP, such as \"23 25\"; the machine's own if empty")
	appsFlag     = flag.Bool("apps", false, "run the applications, too")
	writeFlag    = flag.String("write", "", "the `file` to write the table to, if all goes well")
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience bounds every wait for what is certain to come.
const patience = 60 * time.Second

// root is the directory of the whole project.
const root = ".."

// Every release with every other one, and the applications. One test, because
// the table is of one run or not at all.
func TestInterop(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and other roots need root")
	}
	program := buildProgram(t)
	releases := findReleases(t, strings.Fields(*releasesFlag))
	var found report
	t.Run("OTP", func(t *testing.T) { found.pairs = testReleases(t, program, releases) })
	if *appsFlag {
		t.Run("applications", func(t *testing.T) { found.apps = testApps(t, program) })
	}
	if *writeFlag == "" || t.Failed() {
		return
	}
	found.releases = releases
	path := *writeFlag
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	if err := os.WriteFile(path, found.markdown(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// buildProgram builds oneport and returns its path.
func buildProgram(t *testing.T) string {
	t.Helper()
	depend(t, "cmd", "door", "epmd", "handover", "relay", "upgrade", "erlang/src", "interop")
	path := filepath.Join(t.TempDir(), "oneport")
	command := exec.Command("go", "build", "-trimpath", "-o", path, "oneport/cmd/oneport")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("building oneport: %v\n%s", err, output)
	}
	return path
}

// depend tells the go command, which sees what files a test looks at, that the
// result depends on these: else it takes an old result for a new one.
func depend(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ os.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: not within %v", what, patience)
		}
	}
}

// inParallel runs functions, a few at a time, each of which may fail the test.
func inParallel(t *testing.T, functions []func()) {
	t.Helper()
	var running sync.WaitGroup
	places := make(chan struct{}, 4)
	for _, f := range functions {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			f()
		})
	}
	running.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// sockets counts the sockets that a process has open. Other descriptors come
// and go with what a VM starts when it likes.
func sockets(t *testing.T, p *hosts.Process) (n int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid()))
	if err != nil || len(links) == 0 {
		t.Fatalf("the descriptors of process %d: %v", p.Pid(), err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// end ends a process by SIGTERM.
func end(t *testing.T, p *hosts.Process) {
	t.Helper()
	p.Signal(unix.SIGTERM)
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Errorf("process %d does not end", p.Pid())
	}
}

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"oneport/internal/leak"
)

// program is the path of oneport, which TestMain has built.
var program string

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	leak.Main(m)
}

// build builds oneport. It lives on as an open file only, so that nothing of it is
// left behind, however the tests end.
func build() error {
	dir, err := os.MkdirTemp("", "oneport-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "oneport")
	if output, err := exec.Command("go", "build", "-o", file, "oneport/cmd/oneport").CombinedOutput(); err != nil {
		return fmt.Errorf("building oneport: %w\n%s", err, output)
	}
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", file, err)
	}
	program = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	return nil
}

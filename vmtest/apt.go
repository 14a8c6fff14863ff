package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// series is a line of kernels that a Debian suite follows.
type series struct {
	name   string
	suite  string
	depend string // the suite that the packages of suite depend on, if it is not whole by itself
}

// allSeries returns the series from the oldest to the newest.
func allSeries() []series {
	return []series{
		{name: "5.10", suite: "bullseye"},
		{name: "6.1", suite: "bookworm"},
		{name: "6.12", suite: "trixie"},
		{name: "backports", suite: "trixie-backports", depend: "trixie"},
		{name: "sid", suite: "sid"},
	}
}

// keyring verifies every suite above.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// metapackage depends on the newest kernel of a suite, in the flavour that is
// made for virtual machines.
const metapackage = "linux-image-cloud-amd64"

// fresh is how long a kernel is taken from the cache without a look at what the
// suite has now.
const fresh = 24 * time.Hour

// fetchTime bounds resolving and downloading one kernel.
const fetchTime = 5 * time.Minute

// cached is a kernel's entry in the cache.
type cached struct {
	Version string // of the Debian package
	Root    string // where it is unpacked, beside the entry
	Checked time.Time
}

// fetcher gets kernels by apt, with a configuration that the machine's own apt
// never sees, into a cache.
type fetcher struct {
	cache string
	log   func(format string, args ...any)
}

// defaultCache is where kernels are kept between runs.
func defaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("looking for the cache directory: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "oneport", "kernels"), nil
}

// get returns the newest kernel of a series. Without a network it is that of
// the cache, if there is one.
func (f fetcher) get(ctx context.Context, s series) (kernel, error) {
	dir := filepath.Join(f.cache, s.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return kernel{}, fmt.Errorf("making the cache: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return kernel{}, err
	}
	defer unlock()
	entry, known := readEntry(dir)
	if known && time.Since(entry.Checked) < fresh {
		return openKernel(s.name, entry.Version, filepath.Join(dir, entry.Root))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	updated, err := f.update(ctx, s, dir, entry)
	switch {
	case err == nil:
		entry = updated
	case known:
		f.log("kernel %s: %v; using %s of the cache", s.name, err, entry.Version)
	default:
		return kernel{}, fmt.Errorf("kernel %s: %w; it comes from Debian's suite %s, and %s has no copy", s.name, err, s.suite, f.cache)
	}
	return openKernel(s.name, entry.Version, filepath.Join(dir, entry.Root))
}

// lock keeps other runners out of a directory.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for {
		var locked error
		if err := raw.Control(func(fd uintptr) { locked = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if locked == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(locked, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, locked), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for %s, which another runner holds: %w", path, ctx.Err()), f.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func entryPath(dir string) string { return filepath.Join(dir, "entry.json") }

// readEntry returns the entry of a directory, if it has one that can be used.
func readEntry(dir string) (entry cached, ok bool) {
	b, err := os.ReadFile(entryPath(dir))
	if err != nil || json.Unmarshal(b, &entry) != nil || entry.Root == "" {
		return cached{}, false
	}
	_, err = os.Stat(filepath.Join(dir, entry.Root))
	return entry, err == nil
}

// update asks the suite for its kernel, unpacks it if old is another, and
// writes the entry.
func (f fetcher) update(ctx context.Context, s series, dir string, old cached) (cached, error) {
	a, err := newApt(ctx, s, filepath.Join(dir, "apt"))
	if err != nil {
		return cached{}, err
	}
	if _, err := a.run(ctx, "apt-get", "update", "-qq", "--error-on=any"); err != nil {
		return cached{}, fmt.Errorf("reading the suite's lists: %w", err)
	}
	packages, err := a.packages(ctx)
	if err != nil {
		return cached{}, err
	}
	entry := cached{Version: packages[0].version, Root: "root-" + packages[0].version, Checked: time.Now()}
	if entry.Root != old.Root {
		f.log("kernel %s: fetching %s", s.name, entry.Version)
		if err := a.unpack(ctx, packages, filepath.Join(dir, entry.Root)); err != nil {
			return cached{}, err
		}
	}
	b, err := json.Marshal(entry)
	if err != nil {
		return cached{}, err
	}
	if err := os.WriteFile(entryPath(dir), b, 0o644); err != nil {
		return cached{}, fmt.Errorf("writing the cache: %w", err)
	}
	if old.Root != "" && old.Root != entry.Root {
		if err := os.RemoveAll(filepath.Join(dir, old.Root)); err != nil {
			return cached{}, fmt.Errorf("removing the kernel before: %w", err)
		}
	}
	return entry, nil
}

// apt is an apt with sources, lists and state of its own.
type apt struct {
	dir, conf, suite string
}

// newApt writes the configuration of an apt that knows a series' suites. The
// archive is the one that the machine's own apt uses.
func newApt(ctx context.Context, s series, dir string) (apt, error) {
	archive, err := debianArchive(ctx)
	if err != nil {
		return apt{}, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "none"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return apt{}, fmt.Errorf("making the cache: %w", err)
		}
	}
	var sources strings.Builder
	for _, suite := range []string{s.suite, s.depend} {
		if suite != "" {
			fmt.Fprintf(&sources, "deb [arch=amd64 target=Packages signed-by=%s] %s %s main\n", keyring, archive, suite)
		}
	}
	conf := fmt.Sprintf(`Dir::Etc { SourceList %[1]q; SourceParts %[2]q; Preferences "/dev/null"; PreferencesParts %[2]q; };
Dir::State { Lists %[3]q; Status "/dev/null"; };
Dir::Cache %[4]q;
APT { Architecture "amd64"; Architectures { "amd64"; }; Default-Release %[5]q; Install-Recommends "false"; Sandbox::User "root"; };
Acquire { Languages "none"; Retries "3"; http::Timeout "30"; https::Timeout "30"; };
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`, filepath.Join(dir, "sources.list"), filepath.Join(dir, "none"), filepath.Join(dir, "lists"), filepath.Join(dir, "cache"), s.suite)
	a := apt{dir: dir, conf: filepath.Join(dir, "apt.conf"), suite: s.suite}
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources.String()), 0o644); err != nil {
		return apt{}, fmt.Errorf("writing the cache: %w", err)
	}
	if err := os.WriteFile(a.conf, []byte(conf), 0o644); err != nil {
		return apt{}, fmt.Errorf("writing the cache: %w", err)
	}
	return a, nil
}

// run runs a command of apt's with the own configuration, which is read last.
func (a apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return output(ctx, a.dir, name, append([]string{"-c", a.conf}, args...)...)
}

// debianArchive returns the address of the archive from which this machine,
// itself a Debian, takes its main suite.
func debianArchive(ctx context.Context) (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("looking for the Debian release: %w", err)
	}
	codename := regexp.MustCompile(`(?m)^VERSION_CODENAME="?([a-z]+)"?$`).FindSubmatch(release)
	if codename == nil {
		return "", errors.New("no Debian release in /etc/os-release: kernels are fetched on Debian only")
	}
	uris, err := output(ctx, "/", "apt-get", "update", "--print-uris")
	if err != nil {
		return "", fmt.Errorf("asking apt for its archive: %w", err)
	}
	archive := regexp.MustCompile(`(?m)^'(\S+/debian/?)/dists/` + string(codename[1]) + `/InRelease'`).FindSubmatch(uris)
	if archive == nil {
		return "", fmt.Errorf("no Debian archive of suite %s among the sources of apt", codename[1])
	}
	return string(archive[1]), nil
}

// debPackage is one file of the archive.
type debPackage struct{ name, version string }

// kernelFile is a package that holds a kernel or its modules, of the many that
// would be installed. From about Linux 7 on they are several.
var kernelFile = regexp.MustCompile(`' (linux-(?:image|base|binary|modules)-\d\S*)_(\S+)_amd64\.deb `)

// packages returns the packages that make the suite's kernel, at least one.
func (a apt) packages(ctx context.Context) ([]debPackage, error) {
	uris, err := a.run(ctx, "apt-get", "install", "-qq", "--print-uris", metapackage)
	if err != nil {
		return nil, fmt.Errorf("resolving %s in %s: %w", metapackage, a.suite, err)
	}
	var found []debPackage
	lines := bufio.NewScanner(bytes.NewReader(uris))
	for lines.Scan() {
		if m := kernelFile.FindStringSubmatch(lines.Text()); m != nil {
			found = append(found, debPackage{m[1], strings.ReplaceAll(m[2], "%3a", ":")})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s in %s depends on no kernel", metapackage, a.suite)
	}
	return found, lines.Err()
}

// unpack downloads packages, which apt verifies, and unpacks them into root,
// which is there afterwards as a whole or not at all.
func (a apt) unpack(ctx context.Context, packages []debPackage, root string) error {
	temporary, err := os.MkdirTemp(a.dir, "unpack-")
	if err != nil {
		return fmt.Errorf("making the cache: %w", err)
	}
	defer os.RemoveAll(temporary)
	args := []string{"-c", a.conf, "download", "-qq"}
	for _, p := range packages {
		args = append(args, p.name+"="+p.version)
	}
	if _, err := output(ctx, temporary, "apt-get", args...); err != nil {
		return fmt.Errorf("downloading: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(temporary, "*.deb"))
	if err != nil || len(files) != len(packages) {
		return fmt.Errorf("%d of %d packages downloaded", len(files), len(packages))
	}
	for _, file := range files {
		if _, err := output(ctx, temporary, "dpkg-deb", "-x", file, filepath.Join(temporary, "root")); err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
	}
	if err := os.Rename(filepath.Join(temporary, "root"), root); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing the cache: %w", err)
	}
	return nil
}

// output runs a command and returns its standard output; its error has what it
// wrote to standard error.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "LC_ALL=C")
	out, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"oneport/vmtest/plan"
)

// initramfs builds the archive that a machine has as its root: cpio, format
// newc (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
type initramfs struct {
	archive bytes.Buffer
	entries uint32
	made    map[string]bool
}

const (
	typeDirectory = 0o040000
	typeFile      = 0o100000
	typeDevice    = 0o020000
)

// add writes one entry. Names have no slash before them.
func (a *initramfs) add(name string, mode uint32, content []byte, major, minor uint32) {
	a.entries++
	fields := [...]uint32{a.entries, mode, 0, 0, 1, 0, uint32(len(content)), 0, 0, major, minor, uint32(len(name) + 1), 0}
	a.archive.WriteString("070701")
	for _, field := range fields {
		fmt.Fprintf(&a.archive, "%08x", field)
	}
	a.archive.WriteString(name)
	a.archive.WriteByte(0)
	a.align()
	a.archive.Write(content)
	a.align()
}

func (a *initramfs) align() {
	for a.archive.Len()%4 != 0 {
		a.archive.WriteByte(0)
	}
}

// directory makes a directory with its parents.
func (a *initramfs) directory(name string) {
	name = strings.Trim(name, "/")
	if name == "" || name == "." || a.made[name] {
		return
	}
	a.directory(path.Dir(name))
	if a.made == nil {
		a.made = make(map[string]bool)
	}
	a.made[name] = true
	a.add(name, typeDirectory|0o755, nil, 0, 0)
}

// file adds a file, once.
func (a *initramfs) file(name string, permissions uint32, content []byte) {
	name = strings.Trim(name, "/")
	if a.made[name] {
		return
	}
	a.directory(path.Dir(name))
	a.made[name] = true
	a.add(name, typeFile|permissions, content, 0, 0)
}

// copy adds a file of this machine.
func (a *initramfs) copy(name, source string) error {
	content, err := os.ReadFile(source)
	if err == nil {
		a.file(name, 0o755, content)
	}
	return err
}

// tree adds a directory with all that is in it, if there is one.
func (a *initramfs) tree(name, source string) error {
	if _, err := os.Stat(source); err != nil {
		return nil
	}
	return filepath.WalkDir(source, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		relative, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		return a.copy(path.Join(name, filepath.ToSlash(relative)), file)
	})
}

// tool adds a program of this machine as /bin/name, with its shared libraries.
func (a *initramfs) tool(ctx context.Context, name string) error {
	program, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("a tool of the tests: %w; `make deps` installs it", err)
	}
	if err := a.copy("bin/"+name, program); err != nil {
		return err
	}
	return a.libraries(ctx, program)
}

// libraries adds the shared libraries of a program of this machine.
func (a *initramfs) libraries(ctx context.Context, program string) error {
	libraries, err := output(ctx, "/", "ldd", program)
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(string(libraries)) {
		if strings.HasPrefix(field, "/") {
			if err := a.copy(field, field); err != nil {
				return err
			}
		}
	}
	return nil
}

// erlang adds this machine's Erlang, with the applications that every node has.
func (a *initramfs) erlang(ctx context.Context) error {
	program, err := exec.LookPath("erl")
	if err != nil {
		return fmt.Errorf("the nodes of the tests: %w; `make deps` installs it", err)
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return err
	}
	root := filepath.Dir(filepath.Dir(program))
	for _, pattern := range []string{"bin", "erts-*/bin", "lib/kernel-*/ebin", "lib/stdlib-*/ebin"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("no Erlang installation at %s: %d of %s", root, len(found), pattern)
		}
		if err := a.tree(found[0], found[0]); err != nil {
			return err
		}
		if pattern == "erts-*/bin" {
			if err := a.libraries(ctx, filepath.Join(found[0], "beam.smp")); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"basename", "dirname", "epmd"} { // the first two for the script erl
		if err := a.tool(ctx, name); err != nil {
			return err
		}
	}
	return a.copy("bin/erl", program)
}

// tools are the programs that tests run.
func tools() []string {
	return []string{
		"bash", "cat", "getent", "head", "hostname", "ip", "nft", "nsenter", "pwd", "setpriv", "sh", "sleep", "unshare",
	}
}

// buildInitramfs puts together what a machine needs: the first process, the
// kernel's modules, the tools, and the packages' tests.
func buildInitramfs(ctx context.Context, init string, modules []module, packages []testPackage, options testOptions) ([]byte, error) {
	a := new(initramfs)
	for _, name := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"} {
		a.directory(name)
	}
	a.add("dev/console", typeDevice|0o600, nil, 5, 1)
	a.add("dev/null", typeDevice|0o666, nil, 1, 3)
	a.file("etc/passwd", 0o644, []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	a.file("etc/hosts", 0o644, []byte("127.0.0.1 localhost vmtest\n::1 localhost vmtest\n"))
	a.file("etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files\n"))
	a.file("etc/protocols", 0o644, []byte("icmp 1\ntcp 6\nudp 17\nipv6-icmp 58\n")) // for nft
	if err := a.copy("init", init); err != nil {
		return nil, err
	}
	for _, name := range tools() {
		if err := a.tool(ctx, name); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(packages, func(p testPackage) bool { return p.erlang }) {
		if err := a.erlang(ctx); err != nil {
			return nil, err
		}
	}
	var todo plan.Plan
	for _, m := range modules {
		file := "/lib/modules/" + m.name + ".ko"
		a.file(file, 0o644, m.content)
		todo.Modules = append(todo.Modules, file)
	}
	for _, p := range packages {
		dir := path.Join("/test", p.path)
		program := path.Join(dir, "test")
		if err := a.copy(program, p.binary); err != nil {
			return nil, err
		}
		if err := a.tree(path.Join(dir, "testdata"), filepath.Join(p.dir, "testdata")); err != nil {
			return nil, err
		}
		todo.Programs = append(todo.Programs, plan.Program{
			Name: p.path, Path: program, Dir: dir, Args: options.args(p), Timeout: options.timeout + grace,
		})
	}
	b, err := json.Marshal(todo)
	if err != nil {
		return nil, err
	}
	a.file(plan.Path, 0o644, b)
	a.add("TRAILER!!!", 0, nil, 0, 0)
	return a.archive.Bytes(), nil
}

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is a kernel that can be booted.
type kernel struct {
	name    string // its series
	version string // of its Debian package
	release string // as uname says it
	image   string // a file
	modules string // the directory of its modules
}

// openKernel looks at unpacked packages. The kernel is in /boot, and in newer
// packages beside its modules.
func openKernel(name, version, root string) (kernel, error) {
	for _, pattern := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) != 1 {
			continue
		}
		k := kernel{name: name, version: version, release: filepath.Base(found[0]), modules: found[0]}
		for _, image := range []string{filepath.Join(root, "boot", "vmlinuz-"+k.release), filepath.Join(k.modules, "vmlinuz")} {
			if _, err := os.Stat(image); err == nil {
				k.image = image
				return k, nil
			}
		}
	}
	return kernel{}, fmt.Errorf("kernel %s: no kernel with modules in %s; remove the directory, and it is fetched again", name, root)
}

// wanted are the modules that tests need: the namespaces' cables and switch,
// the firewall between them, questions about sockets, and TLS on them. What is
// built into a kernel is not loaded.
func wanted() []string {
	return []string{"veth", "bridge", "nf_tables", "nft_ct", "nft_counter", "tcp_diag", "unix_diag", "tls"}
}

// absent tells of a module that some kernels do not have: newer ones have it
// inside of another, or older ones were built without.
func absent(name string) bool { return name == "nft_counter" || name == "tls" }

// module is a kernel module as the machine gets it.
type module struct {
	name    string
	content []byte // not compressed
}

// load reads modules and all that they depend on, in the order of loading.
func (k kernel) load(ctx context.Context, names []string) ([]module, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(k.modules, func(path string, _ fs.DirEntry, err error) error {
		if name, _, found := strings.Cut(filepath.Base(path), ".ko"); found {
			files[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kernel %s: looking for modules: %w", k.name, err)
	}
	builtin, err := k.builtin()
	if err != nil {
		return nil, err
	}
	var ordered []module
	var add func(string) error
	add = func(name string) error {
		name = moduleName(name)
		if builtin[name] || slices.ContainsFunc(ordered, func(m module) bool { return m.name == name }) {
			return nil
		}
		path, found := files[name]
		if !found {
			if absent(name) {
				return nil
			}
			return fmt.Errorf("kernel %s has no module %s", k.name, name)
		}
		m := module{name: name}
		var err error
		if m.content, err = readModule(ctx, path); err != nil {
			return err
		}
		depends, err := dependencies(m.content)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := add(d); err != nil {
				return fmt.Errorf("for %s: %w", name, err)
			}
		}
		ordered = append(ordered, m)
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}

// moduleName is the name by which modules depend on each other: a file may
// have dashes in it.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// builtin returns the modules that the kernel has in itself.
func (k kernel) builtin() (map[string]bool, error) {
	list, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k.name, err)
	}
	names := make(map[string]bool)
	for line := range strings.Lines(string(list)) {
		names[moduleName(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
	}
	return names, nil
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	if filepath.Ext(path) == ".xz" {
		return output(ctx, "/", "xz", "-dc", path)
	}
	return os.ReadFile(path)
}

// dependencies reads from a module what else it needs. depmod's modules.dep,
// made of the same, is not part of Debian's packages.
func dependencies(content []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, found := bytes.CutPrefix(entry, []byte("depends=")); found && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}

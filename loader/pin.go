package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"oneport/bpf"
)

// The names of pins are those of the maps and of the program; the attachment,
// where the kernel has a link for it, is the file "attachment"; the file "pairs"
// can be read, and says which sockets have a short way and what they have sent.
const (
	attachmentPin = "attachment"
	pairsPin      = "pairs"
)

// The pins are for root, and to be looked at by the group: a map that can be
// read shows no more than who is paired, but not by everyone.
const (
	pinDirMode  = 0o750
	pinFileMode = 0o640
)

// maps are the maps by the names of their pins. The stage is pinned too: it is
// one of the maps that the programs hold.
func maps(o *bpf.ShortcutObjects) map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		bpf.ShortcutMapSenders:  &o.Senders,
		bpf.ShortcutMapTargets:  &o.Targets,
		bpf.ShortcutMapKeepers:  &o.Keepers,
		bpf.ShortcutMapRoutes:   &o.Routes,
		bpf.ShortcutMapCounters: &o.Counters,
		bpf.ShortcutMapStage:    &o.Stage,
		bpf.ShortcutMapTotals:   &o.Totals,
	}
}

// takeOver replaces what was just loaded by what is pinned, if that is the same:
// programs with the same tags, which the kernel makes of their instructions.
func (l *Loader) takeOver() (bool, error) {
	if l.options.Pins == "" {
		return false, nil
	}
	pinned, attached, err := openPins(l.options.Pins)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // nothing there, or not all, which is not ours
	}
	if err != nil {
		return false, err
	}
	old := &Loader{objects: *pinned, attached: attached}
	same, err := sameTags(&l.objects, pinned)
	if err != nil || !same {
		return false, errors.Join(err, old.release())
	}
	if err := l.objects.Close(); err != nil {
		return false, errors.Join(err, old.release())
	}
	l.objects, l.attached = *pinned, attached
	return true, nil
}

func sameTags(a, b *bpf.ShortcutObjects) (bool, error) {
	for _, pair := range [][2]*ebpf.Program{{a.Shortcut, b.Shortcut}, {a.Describe, b.Describe}} {
		var tags [2]string
		for i, p := range pair {
			info, err := p.Info()
			if err != nil {
				return false, fmt.Errorf("asking for a program's tag: %w", err)
			}
			tags[i] = info.Tag
		}
		if tags[0] != tags[1] {
			return false, nil
		}
	}
	return true, nil
}

// openPins opens everything that is pinned in dir. The attachment is nil if it is
// the map's.
func openPins(dir string) (_ *bpf.ShortcutObjects, attached link.Link, err error) {
	o := new(bpf.ShortcutObjects)
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	for name, m := range maps(o) {
		if *m, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil); err != nil {
			return nil, nil, fmt.Errorf("opening pinned map: %w", err)
		}
	}
	for name, p := range programs(o) {
		if *p, err = ebpf.LoadPinnedProgram(filepath.Join(dir, name), nil); err != nil {
			return nil, nil, fmt.Errorf("opening pinned program: %w", err)
		}
	}
	attached, err = link.LoadPinnedLink(filepath.Join(dir, attachmentPin), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("opening pinned link: %w", err)
	}
	return o, attached, nil
}

func programs(o *bpf.ShortcutObjects) map[string]**ebpf.Program {
	return map[string]**ebpf.Program{
		bpf.ShortcutProgShortcut: &o.Shortcut,
		bpf.ShortcutProgDescribe: &o.Describe,
	}
}

// pin pins everything, in a directory beside the one meant, and puts that into
// its place in one step: others see all of it or nothing.
func (l *Loader) pin() (err error) {
	dir := l.options.Pins
	if dir == "" {
		return nil
	}
	if err := sweep(dir); err != nil {
		return err
	}
	made := dir + newSuffix + strconv.Itoa(os.Getpid())
	if err := os.Mkdir(made, pinDirMode); err != nil {
		return fmt.Errorf("making directory for pins: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(made)
		}
	}()
	pins := make(map[string]func(string) error)
	for name, m := range maps(&l.objects) {
		pins[name] = (*m).Pin
	}
	for name, p := range programs(&l.objects) {
		pins[name] = (*p).Pin
	}
	if l.attached != nil {
		pins[attachmentPin] = l.attached.Pin
	}
	pairs, err := link.AttachIter(link.IterOptions{Program: l.objects.Pairs, Map: l.objects.Routes})
	if err != nil {
		return fmt.Errorf("making the list of pairs: %w", err)
	}
	defer pairs.Close()
	pins[pairsPin] = pairs.Pin
	for name, pin := range pins {
		path := filepath.Join(made, name)
		if err := pin(path); err != nil {
			return fmt.Errorf("pinning: %w", err)
		}
		if err := os.Chmod(path, pinFileMode); err != nil {
			return fmt.Errorf("pinning: %w", err)
		}
	}
	err = unix.Rename(made, dir)
	if err == nil {
		return nil
	}
	// Another version's pins are there.
	if err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("putting pins into place at %s: %w", dir, err)
	}
	return Unpin(made)
}

// newSuffix and a process id end the name of a directory that is not complete.
const newSuffix = "-new-"

// sweep removes what processes have left behind that died before their pins were
// complete.
func sweep(dir string) error {
	left, err := filepath.Glob(dir + newSuffix + "*")
	if err != nil {
		return fmt.Errorf("looking for left pins: %w", err)
	}
	for _, path := range left {
		pid, err := strconv.Atoi(path[len(dir+newSuffix):])
		if err != nil || pid != os.Getpid() && unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		if err := Unpin(path); err != nil {
			return err
		}
	}
	return nil
}

// Unpin removes the pins in dir, and what stays in the kernel only by them. Pairs
// that live go on until they close.
func Unpin(dir string) error {
	var detached error
	o, attached, err := openPins(dir)
	if err == nil {
		// What a map holds before 6.10 it would hold for good.
		l := &Loader{objects: *o, attached: attached}
		detached = l.discard()
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing pins: %w", err)
	}
	return detached
}

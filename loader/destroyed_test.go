package loader_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// destroyed counts the TCP sockets of this host that are destroyed, and those
// that then still owed memory: the kernel warns of the first such only.
type destroyed struct{ counts *ebpf.Map }

// inspectDestroyed looks at every socket when the kernel is done with it, until
// the test ends. It returns nil where the machine lets nobody trace its kernel.
func inspectDestroyed(t *testing.T) *destroyed {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var sock *btf.Struct
	if err := kernel.TypeByName("sock", &sock); err != nil {
		t.Fatal(err)
	}
	at := func(name string) int16 {
		offset, ok := offsetOf(sock.Members, name)
		if !ok {
			t.Fatalf("no %s in struct sock", name)
		}
		return int16(offset)
	}
	const all, owing = 0, 8 // in the map's value
	count := func(which uint32) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapValue(asm.R1, counts.FD(), which),
			asm.Mov.Imm(asm.R2, 1),
			asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		}
	}
	const tcp = 6
	code := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R6, at("sk_protocol"), asm.Half),
		asm.JNE.Imm(asm.R7, tcp, "end"),
	}
	code = append(code, count(all)...)
	for _, name := range []string{"sk_forward_alloc", "rmem_alloc", "sk_wmem_queued"} {
		code = append(code,
			asm.LoadMem(asm.R7, asm.R6, at(name), asm.Word),
			asm.JNE.Imm(asm.R7, 0, "owes"),
		)
	}
	code = append(code, asm.Ja.Label("end"))
	code = append(code, count(owing)...)
	code[len(code)-3] = code[len(code)-3].WithSymbol("owes")
	code = append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceFExit,
		AttachTo:     "inet_sock_destruct",
		Instructions: code,
		License:      "Dual MIT/GPL",
	})
	if errors.Is(err, unix.EPERM) {
		t.Logf("destroyed sockets are not inspected: %v", err)
		return nil
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { program.Close() })
	attached, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { attached.Close() })
	return &destroyed{counts}
}

// check waits until a number of sockets are destroyed, and fails if any of them
// owed memory.
func (d *destroyed) check(t *testing.T, number int64) {
	t.Helper()
	if d == nil {
		return
	}
	var all, owing int64
	eventually(t, func() error {
		value, err := d.counts.LookupBytes(uint32(0))
		if err != nil {
			return err
		}
		all, owing = int64(binary.NativeEndian.Uint64(value)), int64(binary.NativeEndian.Uint64(value[8:]))
		if all < number {
			return errors.New("sockets are not destroyed")
		}
		return nil
	})
	t.Logf("%d sockets destroyed, %d of them owing memory", all, owing)
	if owing != 0 {
		t.Error("sockets owe memory")
	}
}

// offsetOf finds a member, also in what is nested, and tells its place in bytes.
func offsetOf(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		var nested []btf.Member
		switch inner := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			nested = inner.Members
		case *btf.Union:
			nested = inner.Members
		}
		if offset, ok := offsetOf(nested, name); ok {
			return m.Offset.Bytes() + offset, true
		}
	}
	return 0, false
}

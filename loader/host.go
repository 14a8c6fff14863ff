package loader

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Requirement is one thing that the shortcut needs of the host.
type Requirement struct {
	Name     string
	Met      bool
	Detail   string // what was found
	Remedy   string // what to do if it is not met
	Optional bool   // Load goes on without it
}

// bpfFS is BPF_FS_MAGIC of linux/magic.h.
const bpfFS = 0xcafe4a11

// capabilities are those that Load needs, with their numbers of
// linux/capability.h. CAP_SYS_ADMIN, which contains two of them, does too.
var capabilities = [...]struct {
	name  string
	bit   uint
	admin bool
}{
	{"CAP_BPF", unix.CAP_BPF, true},
	{"CAP_PERFMON", unix.CAP_PERFMON, true},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false},
}

// Requirements says what Load would need here and whether it is there: kernel,
// capabilities, and a bpffs at the directory pins, unless that is empty. It
// changes nothing. Whether the kernel also behaves is known only by Load.
func Requirements(pins string) []Requirement {
	var list []Requirement
	// Distributions bring what is new to old kernels: the trial decides.
	list = append(list, Requirement{Name: "kernel", Met: recent(release()), Detail: release(), Remedy: "Linux 6.1 or later", Optional: true})
	const types = "/sys/kernel/btf/vmlinux"
	btf := Requirement{Name: "BTF", Met: true, Detail: types, Remedy: "a kernel with CONFIG_DEBUG_INFO_BTF"}
	if _, err := os.Stat(types); err != nil {
		btf.Met, btf.Detail = false, err.Error()
	}
	list = append(list, btf)

	effective, err := effectiveCapabilities()
	for _, c := range capabilities {
		has := effective&(1<<c.bit) != 0 || c.admin && effective&(1<<unix.CAP_SYS_ADMIN) != 0
		r := Requirement{Name: c.name, Met: has, Detail: "held", Remedy: "AmbientCapabilities=" + c.name + " in the service, or run as root"}
		if err != nil {
			r.Detail = err.Error()
		} else if !has {
			r.Detail = "not held"
		}
		list = append(list, r)
	}

	// Interpreted programs are slow, not wrong.
	jit := Requirement{Name: "JIT", Remedy: "sysctl net.core.bpf_jit_enable=1", Optional: true}
	value, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	switch setting := strings.TrimSpace(string(value)); {
	case err != nil:
		// Kernels that have nothing but the JIT have no switch in namespaces.
		jit.Met, jit.Detail = true, "no switch"
	case setting == "0":
		jit.Detail = "off: programs are interpreted"
	default:
		jit.Met, jit.Detail = true, "on"
	}
	list = append(list, jit)

	if pins != "" {
		list = append(list, bpffs(pins))
	}
	return list
}

func bpffs(pins string) Requirement {
	parent := filepath.Dir(pins)
	r := Requirement{Name: "bpffs", Detail: parent, Remedy: "mount -t bpf bpf " + parent}
	var fs unix.Statfs_t
	if err := unix.Statfs(parent, &fs); err != nil {
		r.Detail += ": " + err.Error()
	} else if fs.Type != bpfFS {
		r.Detail += " is not a bpffs"
	} else {
		r.Met = true
	}
	return r
}

// checkHost returns the first requirement that is not met and has to be.
func checkHost(pins string) error {
	for _, r := range Requirements(pins) {
		if !r.Met && !r.Optional {
			return &UnsupportedError{What: r.Name + ": " + r.Detail, Remedy: r.Remedy}
		}
	}
	return nil
}

func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("asking for capabilities: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "Linux"
	}
	return "Linux " + unix.ByteSliceToString(name.Release[:])
}

// recent tells whether a release, as release returns it, is 6.1 or later.
func recent(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "Linux %d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 1
}

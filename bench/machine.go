package bench

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine tells what this run is made on.
func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), MaxFiles: maxFiles(), Virtual: hypervisor()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if fields := procFields("/proc/cpuinfo"); fields != nil {
		m.Processor = fields["model name"]
	}
	m.Memory = memory("MemTotal")
	return m
}

// memory is a line of /proc/meminfo in bytes, or 0.
func memory(line string) uint64 {
	kilobytes, _, _ := strings.Cut(procFields("/proc/meminfo")[line], " ")
	n, err := strconv.ParseUint(kilobytes, 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// procFields reads a file of lines "name: value". Of a name that comes more than
// once the first one counts.
func procFields(path string) map[string]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	fields := make(map[string]string)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ":")
		name = strings.TrimSpace(name)
		if _, known := fields[name]; ok && !known {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

// hypervisor names what the machine runs in, or is empty on bare metal.
func hypervisor() string {
	if !strings.Contains(" "+procFields("/proc/cpuinfo")["flags"]+" ", " hypervisor ") {
		return ""
	}
	for _, path := range []string{"/sys/hypervisor/type", "/sys/class/dmi/id/product_name", "/sys/class/dmi/id/sys_vendor"} {
		if text, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(text))) > 0 {
			return strings.TrimSpace(string(text))
		}
	}
	return "of unknown kind"
}

// maxFiles is how many descriptors this process may have at most.
func maxFiles() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Max
}

// raiseFileLimit makes the soft limit of open files the hard one, and that the
// kernel's if that is allowed. Processes that are started inherit it.
func raiseFileLimit() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && n > limit.Max {
			most := unix.Rlimit{Cur: n, Max: n}
			if unix.Setrlimit(unix.RLIMIT_NOFILE, &most) == nil {
				return
			}
		}
	}
	limit.Cur = limit.Max
	// An error leaves the limit as it was, and fewer connections possible.
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// versions asks the programs that may take part. Those that are missing are left
// out.
func versions(ctx context.Context, oneport string) []Version {
	all := []Version{{"Go", runtime.Version()}}
	if oneport != "" {
		all = append([]Version{{"oneport", oneport}}, all...)
	}
	for _, p := range []struct {
		name   string
		prefix string // of the line that has the version
		args   []string
	}{
		{"Erlang/OTP", "", []string{"erl", "-noshell", "-eval", `io:format("~s (ERTS ~s)~n", [erlang:system_info(otp_release), erlang:system_info(version)]), halt().`}},
		{"HAProxy", "HAProxy version ", []string{"haproxy", "-v"}},
		{"nginx", "nginx version: ", []string{"nginx", "-v"}},
		{"socat", "socat version ", []string{"socat", "-V"}},
	} {
		if v, ok := versionOf(ctx, p.prefix, p.args); ok {
			all = append(all, Version{p.name, v})
		}
	}
	return all
}

// versionOf runs a program and returns what follows prefix in its output.
func versionOf(ctx context.Context, prefix string, args []string) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	path, err := exec.LookPath(args[0])
	if err != nil && args[0] == "nginx" {
		// Not every user's PATH has it.
		path, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		return "", false
	}
	c := exec.CommandContext(ctx, path, args[1:]...)
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			rest, _, _ = strings.Cut(strings.TrimSpace(rest), " on ") // socat's date of building
			rest, _, _ = strings.Cut(rest, " - ")                     // HAProxy's address
			return rest, true
		}
	}
	return "", false
}

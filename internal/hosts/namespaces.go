package hosts

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"oneport/internal/netns"
)

// namespaces are the descriptors that hold a host's namespaces.
type namespaces struct {
	net, uts, mount int
}

// newNamespaces makes namespaces with a hostname of their own and with files
// mounted over others, given as target to source.
func newNamespaces(hostname string, mounts map[string]string) (n namespaces, err error) {
	n = namespaces{-1, -1, -1}
	netns.OnOwnThread(func() {
		if err = n.unshare(hostname, mounts); err != nil {
			n.close()
		}
	})
	return n, err
}

// unshare moves the calling thread, which must not be used for anything else
// afterwards, into new namespaces, and opens them.
func (n *namespaces) unshare(hostname string, mounts map[string]string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("setting the hostname: %w", err)
	}
	// Else the mounts below would be everybody's.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for target, source := range mounts {
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting over %s: %w", target, err)
		}
	}
	for _, space := range []struct {
		name string
		fd   *int
	}{{"net", &n.net}, {"uts", &n.uts}, {"mnt", &n.mount}} {
		fd, err := unix.Open("/proc/thread-self/ns/"+space.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening namespace %s: %w", space.name, err)
		}
		*space.fd = fd
	}
	return nil
}

// path names a namespace for another process.
func (n namespaces) path(fd int) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
}

func (n namespaces) close() {
	for _, fd := range []int{n.net, n.uts, n.mount} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

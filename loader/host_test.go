package loader

import "testing"

func TestRecentKernels(t *testing.T) {
	for release, want := range map[string]bool{
		"Linux 5.10.0-33-amd64": false,
		"Linux 6.0.19":          false,
		"Linux 6.1.0-37-amd64":  true,
		"Linux 6.18.1":          true,
		"Linux 10.0-rc1":        true,
		"Linux":                 false,
	} {
		if got := recent(release); got != want {
			t.Errorf("%s: %v", release, got)
		}
	}
}

package endpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// The highest scope of Yama, which cannot be set back, forbids what the
// capability would allow; a kernel without Yama does not.
func TestYamaForbids(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ptrace_scope")
	if err := checkYama(path); err != nil {
		t.Errorf("without Yama: %v", err)
	}
	for scope, forbidden := range map[string]bool{"0": false, "1": false, "2": false, "3": true} {
		if err := os.WriteFile(path, []byte(scope+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkYama(path); (err != nil) != forbidden {
			t.Errorf("scope %s: %v", scope, err)
		}
	}
}

//go:build race

package e2e

// With tests that look for data races, the daemon looks for them as well, and
// says what it has found when it ends. The detector needs cgo; the resolver
// stays the one of the static binary.
var (
	buildFlags = []string{"-race", "-tags=netgo,osusergo"}
	buildEnv   = []string{"CGO_ENABLED=1"}
)

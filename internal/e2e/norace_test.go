//go:build !race

package e2e

// The daemon is built as it is for users.
var (
	buildFlags = []string{"-trimpath"}
	buildEnv   = []string{"CGO_ENABLED=0"}
)

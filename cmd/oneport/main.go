// Oneport is the one TCP port through which every Erlang and Elixir node of a
// host is reached. This package is its command line and wires the other
// packages together; it knows no protocol.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	e := &env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	os.Exit(run(context.Background(), e, os.Args))
}

// run is the whole program: args[0] is the name that it is called by.
func run(ctx context.Context, e *env, args []string) int {
	if len(args) > 0 && filepath.Base(args[0]) == "epmd" {
		return runEPMD(ctx, args[1:], e.stdout, e.stderr, e.getenv)
	}
	root := newRoot(e)
	if len(args) > 1 && strings.HasPrefix(args[1], "bench-") {
		// Not for people; and what is hidden takes room in the list of commands all the same.
		root.AddCommand(newBenchProcesses(e)...)
	}
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(e.stderr, "oneport: %v\n", err)
	if failed := (*failure)(nil); errors.As(err, &failed) {
		return exitFailed
	}
	return exitUsage
}

// newRoot returns the command that has all others.
func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "oneport",
		Short: "One TCP port through which every Erlang node of this host is reached",
		Long: `oneport is one TCP port through which every Erlang and Elixir node of a host
is reached: it speaks EPMD and an HTTP upgrade to the Erlang distribution,
finds the node that is meant, and passes ordinary web traffic on.

Begin with ` + "`oneport serve`" + `; nodes need no change. ` + "`oneport doctor`" + ` looks at the host;
the other commands read from the running daemon over its control socket.`,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())
	})
	root.AddCommand(
		newServe(e), newNodes(e), newConnections(e), newStatus(e), newDrop(e), newAlias(e), newDoctor(e), newBench(e), newVersion(e), newEPMD(e),
	)
	return root
}

// newEPMD is `oneport epmd`: OTP's daemon's command line, which is not cobra's.
func newEPMD(e *env) *cobra.Command {
	return &cobra.Command{
		Use:                "epmd [OTP's epmd arguments]",
		Short:              "Be EPMD alone: a drop-in for OTP's daemon, also when called by the name epmd",
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			if code := runEPMD(c.Context(), args, e.stdout, e.stderr, e.getenv); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}

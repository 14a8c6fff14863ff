package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"oneport/door"
)

func newDrop(e *env) *cobra.Command {
	var daemon client
	c := &cobra.Command{
		Use:   "drop NODE|ID",
		Short: "End the connections to a node, or one connection",
		Long: `End every connection to the node NODE (its name, or NAME@HOST), or the
one whose number is ID (see oneport connections). The node stays registered.`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var conns []door.Info
			if err := daemon.get(c.Context(), "connections", &conns); err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			var targets []string
			for _, i := range conns {
				targets = append(targets, strconv.FormatUint(i.ID, 10))
				if i.Node != "" && !slices.Contains(targets, i.Node) {
					targets = append(targets, i.Node)
				}
			}
			return targets, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			n, err := daemon.drop(c.Context(), args[0])
			switch {
			case err != nil:
				return err
			case n == 0:
				return failed(fmt.Errorf("no connection is, or leads to, %q; see `oneport connections`", args[0]))
			case n == 1:
				fmt.Fprintln(e.stdout, "dropped 1 connection")
			default:
				fmt.Fprintf(e.stdout, "dropped %d connections\n", n)
			}
			return nil
		},
	}
	daemon.flag(c)
	return c
}

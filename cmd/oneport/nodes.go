package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"oneport/door"
)

func newNodes(e *env) *cobra.Command {
	var daemon client
	var asJSON bool
	c := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes of this host",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var nodes []door.NodeInfo
			if err := daemon.get(c.Context(), "nodes", &nodes); err != nil {
				return err
			}
			if asJSON {
				return printJSON(e, nodes)
			}
			if len(nodes) == 0 {
				fmt.Fprintln(e.stdout, "no nodes are registered")
				return nil
			}
			t := newTable(e, "NAME", "PORT", "TYPE", "VERSIONS", "UID", "PID", "AGE")
			for _, n := range nodes {
				kind := "normal"
				if n.Hidden {
					kind = "hidden"
				}
				t.row(n.Name, strconv.Itoa(int(n.Port)), kind, fmt.Sprintf("%d-%d", n.Lowest, n.Highest), known(n.UID, -1), known(int64(n.PID), 0), humanAge(n.AgeS))
			}
			return t.flush()
		},
	}
	daemon.flag(c)
	jsonFlag(c, &asJSON)
	return c
}

// known prints a number, or a dash if it has the value that stands for none.
func known(n, none int64) string {
	if n == none {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

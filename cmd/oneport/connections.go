package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"oneport/door"
)

func newConnections(e *env) *cobra.Command {
	var daemon client
	var asJSON bool
	c := &cobra.Command{
		Use:   "connections",
		Short: "List the open connections, with the path of each and why not a better one",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var conns []door.Info
			if err := daemon.get(c.Context(), "connections", &conns); err != nil {
				return err
			}
			if asJSON {
				return printJSON(e, conns)
			}
			if len(conns) == 0 {
				fmt.Fprintln(e.stdout, "no connections are open")
				return nil
			}
			t := newTable(e, "ID", "PEER", "NODE", "PROTOCOL", "PATH", "TO NODE", "TO CLIENT", "STATE", "AGE", "WHY")
			for _, i := range conns {
				t.row(strconv.FormatUint(i.ID, 10), i.Peer, dash(i.Node), string(i.Protocol), dash(i.Path),
					humanBytes(i.BytesToNode), humanBytes(i.BytesToClient), string(i.State), humanAge(i.AgeS), dash(i.Why))
			}
			return t.flush()
		},
	}
	daemon.flag(c)
	jsonFlag(c, &asJSON)
	return c
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

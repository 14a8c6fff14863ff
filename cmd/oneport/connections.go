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
			t := newTable(e, "ID", "PEER", "NODE", "PROTOCOL", "PATH", "SHORT", "TO NODE", "TO CLIENT", "STATE", "AGE", "WHY")
			for _, i := range conns {
				id := "-" // of one that this daemon never had
				if i.ID != 0 {
					id = strconv.FormatUint(i.ID, 10)
				}
				short, why := shortOf(i)
				t.row(id, i.Peer, dash(i.Node), string(i.Protocol), dash(i.Path), dash(short),
					humanBytes(i.BytesToNode), humanBytes(i.BytesToClient), string(i.State), humanAge(i.AgeS), dash(why))
			}
			return t.flush()
		},
	}
	daemon.flag(c)
	jsonFlag(c, &asJSON)
	return c
}

// shortOf returns the share of bytes that went the short way, and why not a
// better path was taken, with the messages that went the long one by the reason.
func shortOf(i door.Info) (share, why string) {
	if i.Shortcut == nil {
		return "", i.Why
	}
	if s, ok := i.Shortcut.Share(); ok {
		share = strconv.Itoa(int(100*s)) + "%"
	}
	why = i.Why
	if long := i.Shortcut.Long().String(); long != "" {
		if why != "" {
			why += "; "
		}
		why += "long way: " + long
	}
	return share, why
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"oneport/door"
	"oneport/shortcut"
)

// status is what `oneport status` prints.
type status struct {
	Version string `json:"version"` // of the daemon
	PID     int    `json:"pid"`
	door.Stats
}

func statusOf(d *door.Door) status {
	return status{Version: buildVersion().Version, PID: os.Getpid(), Stats: d.Stats()}
}

func newStatus(e *env) *cobra.Command {
	var daemon client
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what the daemon does and has done",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s status
			if err := daemon.get(c.Context(), "status", &s); err != nil {
				return err
			}
			if asJSON {
				return printJSON(e, s)
			}
			state := "serving"
			if s.Draining {
				state = "draining: nothing is accepted any more"
			}
			t := newTable(e, "oneport "+s.Version, fmt.Sprintf("pid %d, up %s, %s", s.PID, humanAge(s.UptimeS), state))
			t.row("listening on", strings.Join(s.Listen, ", "))
			t.row("nodes", strconv.Itoa(s.Nodes))
			t.row("connections", fmt.Sprintf("%d accepted; open: %s", s.Accepted, counts(s.Open)))
			t.row("by protocol", counts(s.Protocols))
			t.row("by path", counts(s.Paths))
			t.row("handovers", counts(s.Handovers))
			t.row("refused", counts(s.Refused))
			t.row("shortcut", s.Shortcut)
			t.row("past TCP", pastTCP(s.Shortened))
			t.row("bytes", humanBytes(s.BytesToNode)+" to nodes, "+humanBytes(s.BytesToClient)+" to clients")
			return t.flush()
		},
	}
	daemon.flag(c)
	jsonFlag(c, &asJSON)
	return c
}

// pastTCP says how much went the short way, of what could have.
func pastTCP(by map[string]shortcut.Traffic) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		if t := by[kind]; t.ShortBytes+t.LongBytes > 0 {
			parts = append(parts, fmt.Sprintf("%s of %s %s", humanBytes(t.ShortBytes), humanBytes(t.ShortBytes+t.LongBytes), kind))
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// counts prints counters in the order of their names.
func counts[K ~string, N int | uint64](m map[K]N) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

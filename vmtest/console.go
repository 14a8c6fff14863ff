package main

import (
	"bytes"
	"regexp"
)

// complaint is a line by which the kernel says that it, and not a program, has
// gone wrong. Messages begin after their time and, in some kernels, their CPU
// or task in brackets. A WARNING further on in a line is somebody's advice,
// such as that on Spectre.
var complaint = regexp.MustCompile(`^(?:\[[^\]]*\]\s*)*(?:` +
	`WARNING: ` +
	`|(?:[\w ]+: )?BUG: ` + // also "watchdog: BUG: soft lockup", and KASAN's
	`|kernel BUG at ` +
	`|[Oo]ops: ` +
	`|Kernel panic` +
	`|general protection fault` +
	`|UBSAN: ` +
	`|rcu: INFO: \w+ .*(?:stall|kthread starved)` +
	`|INFO: task .* blocked for more than ` +
	`|unregister_netdevice: waiting for ` +
	`|=+\[ cut here \]|-+\[ cut here \]` +
	`|Call Trace:` +
	`)`)

// control is what serial consoles and firmware send beside text.
var control = regexp.MustCompile("\x1b(?:c|\\[[?0-9;]*[a-zA-Z])|\r")

// plain returns a console's text without control sequences.
func plain(console []byte) []byte { return control.ReplaceAll(console, nil) }

// complaints returns the lines in which the kernel complains.
func complaints(console []byte) []string {
	var found []string
	for line := range bytes.Lines(plain(console)) {
		if line = bytes.TrimRight(line, "\n"); complaint.Match(line) {
			found = append(found, string(line))
		}
	}
	return found
}

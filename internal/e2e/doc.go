// Package e2e holds the end-to-end tests: real nodes on hosts that are apart,
// behind a firewall that lets one port in, with the daemon as it is installed
// on each of them.
//
// The tests know the command line, the control socket's JSON and what goes over
// the wire, as users do. They know nothing of how the daemon does its work; that
// is tested where it is written.
package e2e

// Package interop shows which releases of Erlang/OTP, and which applications
// that others have built on it, work through the one port.
//
// Nodes of every release run on hosts that are apart, behind a firewall that
// lets one port in, each in the files of the Debian that packages it; roots.sh
// makes those. What is found is the table docs/COMPATIBILITY.md, so that
// nothing stands there that a machine has not shown.
//
// The package knows nothing of how the daemon does its work, and tests nothing
// that does not depend on the release: that is for internal/e2e.
package interop

package bench

import "time"

// Schema is the version of Result as JSON. It changes when a field changes its
// meaning.
const Schema = 1

// Layout is where the client and the node are.
type Layout string

// The layouts.
const (
	Loopback Layout = "loopback" // both in the network namespace of the caller, 127.0.0.1
	Veth     Layout = "veth"     // each in a network namespace of its own, MTU 1500
)

// Group is a kind of work that has its own baseline.
type Group string

// The groups.
const (
	Sockets Group = "sockets" // two programs, a connection or many; baseline "direct"
	Nodes   Group = "nodes"   // two Erlang nodes; baseline "direct"
	EPMD    Group = "epmd"    // requests to EPMD; baseline "epmd", OTP's own
)

// Baseline is the way that all others of a group are compared with.
func (g Group) Baseline() string {
	if g == EPMD {
		return "epmd"
	}
	return "direct"
}

// Result is one run, whole or as far as it came.
type Result struct {
	Schema       int           `json:"schema"`
	Began        time.Time     `json:"began"`
	Seconds      float64       `json:"seconds"` // that the run took
	Complete     bool          `json:"complete"`
	Machine      Machine       `json:"machine"`
	Settings     Settings      `json:"settings"`
	Versions     []Version     `json:"versions"` // of oneport, Go, Erlang and the peers
	Series       []Series      `json:"series"`
	Slow         []SlowReader  `json:"slow_readers,omitempty"`
	Absent       []Absent      `json:"absent,omitempty"` // ways that could not be measured
	Disturbances []Disturbance `json:"disturbances,omitempty"`
}

// Machine is what the run was made on.
type Machine struct {
	Kernel    string `json:"kernel"`
	Processor string `json:"processor"`
	CPUs      int    `json:"cpus"`
	Memory    uint64 `json:"memory"`         // bytes
	Virtual   string `json:"virtual"`        // hypervisor, or empty
	MaxFiles  uint64 `json:"max_open_files"` // of a process
}

// Settings are what was asked for.
type Settings struct {
	Rounds  int      `json:"rounds"`
	Short   bool     `json:"short"` // for correctness only: the figures mean nothing
	Only    []string `json:"only,omitempty"`
	Layouts []Layout `json:"layouts"`
	Groups  []Group  `json:"groups"`
}

// Version is that of one program.
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Point is one thing that is measured.
type Point struct {
	Layout      Layout `json:"layout"`
	Group       Group  `json:"group"`
	Work        string `json:"work"`                  // such as "bulk to node", "round trip", "set-up", "idle"
	Connections int    `json:"connections,omitempty"` // at once
	Size        int    `json:"size,omitempty"`        // of a message, bytes
	Names       int    `json:"names,omitempty"`       // registered nodes
	Metric      string `json:"metric"`                // such as "throughput", "p50", "machine CPU", "daemon memory"
	Unit        string `json:"unit"`                  // such as "MB/s", "us", "s/GiB", "B", "1/s"
	Lower       bool   `json:"lower_is_better"`
}

// Series is what one way reached at one point, round by round.
type Series struct {
	Point
	Way string `json:"way"`
	// Rounds are the values. All series of a point have the same length while
	// the run lasts; a round that a way did not do is missing in none.
	Rounds []float64 `json:"rounds"`
	// Sample is the distribution of single latencies of all rounds, for plots:
	// quantiles at 0, 0.01, ... 0.99, 1, in Unit. Nil if there is none.
	Sample []float64 `json:"sample,omitempty"`
}

// SlowReader is the memory that a way piles up before a reader who sleeps.
type SlowReader struct {
	Layout   Layout  `json:"layout"`
	Way      string  `json:"way"`
	Offered  uint64  `json:"offered"`  // bytes that the sender tried to send
	Accepted uint64  `json:"accepted"` // bytes that the sender got rid of while the reader slept
	Memory   int64   `json:"memory"`   // bytes that MemAvailable fell by meanwhile
	Sleep    float64 `json:"sleep"`    // seconds
}

// Absent is a way that was not measured, or not to the end.
type Absent struct {
	Layout Layout `json:"layout,omitempty"` // empty: any
	Group  Group  `json:"group,omitempty"`  // empty: any
	Way    string `json:"way"`
	Why    string `json:"why"`
}

// Disturbance is a moment at which something else used the machine.
type Disturbance struct {
	At     time.Time `json:"at"`
	Round  int       `json:"round"`
	During string    `json:"during"` // way and work
	Steal  float64   `json:"steal"`  // share of the processors' time that the hypervisor took
	Other  float64   `json:"other"`  // share that processes used which are not of the run
}

package epmd

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// DefaultPort is the port registered for EPMD with IANA.
const DefaultPort = 4369

// NodeType says whether a node shows itself to the others of its cluster. A
// value other than Normal and Hidden is passed on as it came.
type NodeType byte

const (
	Normal NodeType = 'M' // an ordinary node
	Hidden NodeType = 'H' // a C node; erl -hidden registers as Normal all the same
)

// String names the type, or gives its number.
func (t NodeType) String() string {
	switch t {
	case Normal:
		return "normal"
	case Hidden:
		return "hidden"
	}
	return fmt.Sprintf("type %d", byte(t))
}

const (
	// MaxName is how many characters, not bytes, a node's name may have.
	MaxName = 255
	// MaxExtra is how many bytes of extra data a node may register.
	MaxExtra = maxNameBytes

	maxNameBytes = utf8.UTFMax * MaxName
)

// version6 is the distribution version from which on a node takes a 32-bit
// creation (OTP 23).
const version6 = 6

// Node is what a node says of itself when it registers, and what others are
// told who ask for it.
type Node struct {
	Name     string   // the part before the @; UTF-8, no NUL, 1 to MaxName characters
	Port     uint16   // TCP port that it listens on for the distribution
	Type     NodeType // Normal or Hidden
	Protocol byte     // 0 is TCP over IPv4; OTP sends nothing else
	Highest  uint16   // highest distribution version that it speaks; 6 since OTP 23
	Lowest   uint16   // lowest
	Extra    []byte   // any bytes, at most MaxExtra; nil when there are none
}

// ErrInvalidNode says that a node cannot be registered as it describes itself.
var ErrInvalidNode = errors.New("invalid node")

// validate tells whether the registry of a daemon may hold n.
func (n *Node) validate() error {
	if err := validateName(n.Name); err != nil {
		return err
	}
	if len(n.Extra) > MaxExtra {
		return fmt.Errorf("%w: %d bytes of extra data, %d are allowed", ErrInvalidNode, len(n.Extra), MaxExtra)
	}
	return nil
}

func validateName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty name", ErrInvalidNode)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%w: NUL in name %q", ErrInvalidNode, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: name %q is not UTF-8", ErrInvalidNode, name)
	}
	if n := utf8.RuneCountInString(name); n > MaxName {
		return fmt.Errorf("%w: name of %d characters, %d are allowed", ErrInvalidNode, n, MaxName)
	}
	return nil
}

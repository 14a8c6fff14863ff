package shortcut

import (
	"context"
	"errors"
	"net"
)

// Check says why a connection that is about to be relayed can have no short way,
// or nil if it looks as if it could: Relayed may fail still. It is for those who
// must know before they promise one. It changes nothing.
func (s *Service) Check(ctx context.Context, c Connection, client, node *net.TCPConn) error {
	if s.off != "" {
		return errors.New(s.off)
	}
	ctx, cancel := context.WithTimeout(ctx, relayPatience)
	defer cancel()
	end, err := s.findClient(ctx, &link{Connection: c}, client)
	switch {
	case err == nil:
		defer end.Close()
	case !errors.Is(err, errElsewhere):
		return errors.New(reason(err))
	}
	other, err := s.findNode(ctx, addrPort(node.RemoteAddr()), addrPort(node.LocalAddr()))
	if err != nil {
		return errors.New(reason(err))
	}
	defer other.Close()
	if end == nil {
		return nil
	}
	if err := s.gains(end, other); err != nil {
		return errors.New(reason(err))
	}
	return nil
}

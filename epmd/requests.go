package epmd

import (
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
)

// requestName names a request for the log.
func requestName(r Request) string {
	switch r := r.(type) {
	case AliveRequest:
		return "ALIVE2_REQ " + r.Name
	case PortRequest:
		return "PORT_PLEASE2_REQ " + r.Name
	case NamesRequest:
		return "NAMES_REQ"
	case DumpRequest:
		return "DUMP_REQ"
	case KillRequest:
		return "KILL_REQ"
	case StopRequest:
		return "STOP_REQ " + r.Name
	case HandoverRequest:
		return "HANDOVER_REQ " + r.Name
	}
	return fmt.Sprintf("%T", r)
}

// port answers a PORT_PLEASE2_REQ.
func (x *exchange) port(name string) {
	node, ok := x.Registry.Lookup(name)
	if !ok && x.Alias != nil {
		node, ok = x.Alias(name)
	}
	if !ok {
		x.answer(PortResponse{Result: ResultFailed}.Append(nil))
		return
	}
	if x.Answer == nil {
		x.answer(node.answer)
		return
	}
	port, ok := x.Answer(x.ctx, x.conn, node)
	if !ok {
		x.answer(PortResponse{Result: ResultFailed}.Append(nil))
		return
	}
	told := node.Node
	told.Port = port
	x.answer(PortResponse{ResultOK, told}.Append(nil))
}

// names answers a NAMES_REQ.
func (x *exchange) names() {
	all := x.Registry.All()
	x.list(NamesResponse{Port: x.told()}.Append(nil), len(all), func(dst []byte, i int) []byte {
		return appendNameLine(dst, all[i].Name, all[i].Port)
	})
}

// dump answers a DUMP_REQ.
func (x *exchange) dump() {
	all := x.Registry.All()
	live := len(all)
	all = append(all, x.Registry.formerNames()...)
	x.list(DumpResponse{Port: x.told()}.Append(nil), len(all), func(dst []byte, i int) []byte {
		return DumpEntry{all[i].Name, all[i].Port, all[i].fd, i >= live}.appendLine(dst)
	})
}

// list sends an answer of n lines, a part at a time: a client that reads
// slowly is waited for as long as it reads at all, and costs one part.
func (x *exchange) list(answer []byte, n int, appendLine func(dst []byte, i int) []byte) {
	if x.delay() != nil {
		return
	}
	for i := range n {
		answer = appendLine(answer, i)
		if len(answer) < listChunk {
			continue
		}
		if _, err := x.Write(answer); err != nil {
			x.log().WithError(err).Debug("sending list")
			return
		}
		answer = answer[:0]
	}
	if _, err := x.Write(answer); err != nil {
		x.log().WithError(err).Debug("sending list")
	}
}

// alive registers a node, and returns when its connection is closed.
func (x *exchange) alive(node Node) {
	extended := node.Highest >= version6
	registered, err := x.register(node)
	if err != nil {
		x.log().WithError(err).Warn("refusing registration")
		x.answer(AliveResponse{ResultFailed, refusedCreation, extended}.Append(nil))
		return
	}
	defer x.Registry.Unregister(registered)
	if x.delay() != nil {
		return
	}
	response := AliveResponse{ResultOK, registered.Creation, extended}
	if _, err := x.Write(response.Append(nil)); err != nil {
		x.note(registered, nodeLost, err)
		return
	}
	x.note(registered, nodeRegistered, nil)
	x.awaitEnd(registered)
	x.note(registered, nodeUnregistered, nil)
}

// What a node's life has of events for the log.
const (
	nodeRegistered   = "registered node"
	nodeUnregistered = "unregistered node"
	nodeLost         = "node is gone before it was registered"
)

// note logs an event of a node's life. A log that does not want to know costs
// nothing.
func (s *Server) note(r *Registration, event string, err error) {
	if !enabled(s.Log, logrus.InfoLevel) {
		return
	}
	fields := logrus.Fields{"peer": r.Peer.String(), "node": r.Name, "creation": r.Creation}
	if event == nodeRegistered {
		fields["port"], fields["type"] = r.Port, r.Type.String()
	}
	log := logger(s.Log).WithFields(fields)
	if err != nil {
		log = log.WithError(err)
	}
	log.Info(event)
}

// awaitEnd returns when a node has closed its connection, or has to be
// unregistered for another reason.
func (x *exchange) awaitEnd(registered *Registration) {
	// Somebody may unregister the node between here and there: he sets the
	// deadline, so it must be set before looking.
	if x.conn.SetDeadline(time.Time{}) != nil || x.ctx.Err() != nil {
		return
	}
	select {
	case <-registered.Gone():
		return
	default:
	}
	if registered.question != nil {
		close(registered.question.told)
	}
	// Bytes are the end as well, unless the node was asked; and so is an error.
	for awaitClose(x.conn) == nil && registered.question.take(x.conn) {
	}
}

// register enters a node, also in place of one that is just about to go.
func (x *exchange) register(node Node) (*Registration, error) {
	registered, err := x.Registry.Register(node, x.conn)
	if !errors.Is(err, ErrNameInUse) {
		return registered, err
	}
	if holder, ok := x.Registry.Lookup(node.Name); ok {
		timer := time.NewTimer(duplicateGrace)
		defer timer.Stop()
		select {
		case <-holder.Gone():
		case <-timer.C:
			return nil, err
		case <-x.ctx.Done():
			return nil, err
		}
	}
	return x.Registry.Register(node, x.conn)
}

// kill answers a KILL_REQ.
func (x *exchange) kill() {
	if x.Kill == nil || !x.RelaxedCommandCheck && x.Registry.Len() > 0 {
		x.log().Warn("refusing to be killed")
		x.answer([]byte(killRefused))
		return
	}
	x.log().Warn("killed on request")
	x.answer([]byte(killAllowed))
	x.killed = true
}

// stop answers a STOP_REQ.
func (x *exchange) stop(name string) {
	if !x.RelaxedCommandCheck {
		x.log().WithField("node", name).Warn("refusing to unregister a node on request")
		return
	}
	node, ok := x.Registry.Lookup(name)
	if !ok || !x.Registry.Unregister(node) {
		x.answer([]byte(stopNotFound))
		return
	}
	// Its owner closes it.
	switch {
	case node.held != nil:
		node.held.end()
	case node.alive != nil:
		_ = node.alive.SetReadDeadline(past())
	}
	x.answer([]byte(stopDone))
}

// handover gives the connection away. It returns false if it could not.
func (x *exchange) handover(name string) bool {
	if x.Handover == nil {
		x.answer(HandoverResponse{Result: ResultFailed}.Append(nil))
		return false
	}
	if !x.release() || x.conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	x.Handover(x.ctx, x.conn, name)
	return true
}

package cluster

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// rpcVersion is the version of requests and answers.
const rpcVersion = 1

const (
	// maxFrame bounds a request or an answer: a transaction that forgets a node with thousands of blocks is a tenth of it.
	maxFrame = 1 << 20
	// rpcIdle is how long a connection may be silent between requests, and how long one frame may take.
	rpcIdle = 30 * time.Second
)

// Requests.
const (
	opHello   = "hello"   // greeting -> greeting
	opJoin    = "join"    // registered -> joined
	opPropose = "propose" // entry -> result
	opIndex   = "index"   // nothing -> progress
	opReadmit = "readmit" // nothing -> readmitted
)

// Codes of refusals, for programs.
const (
	codeRetry   = "retry"   // not now, or not here
	codeRefused = "refused" // the text is for the operator
	codeFenced  = "fenced"  // this identity is no longer accepted
)

type request struct {
	Version int             `json:"v"`
	Op      string          `json:"op"`
	Body    json.RawMessage `json:"body,omitempty"`
}

type answer struct {
	Version int             `json:"v"`
	Code    string          `json:"code,omitempty"` // empty: done
	Text    string          `json:"text,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// rpcError is a refusal by another node.
type rpcError struct{ code, text string }

func (e *rpcError) Error() string { return e.text }

func refusal(code, format string, args ...any) error {
	return &rpcError{code: code, text: fmt.Sprintf(format, args...)}
}

// codeOf is the code of a refusal, or empty.
func codeOf(err error) string {
	var refused *rpcError
	if errors.As(err, &refused) {
		return refused.code
	}
	return ""
}

// progress is how far a node's copy of the facts is.
type progress struct {
	Last       uint64 `json:"last"`                 // in its log
	Applied    uint64 `json:"applied"`              // in its view
	Term       uint64 `json:"term,omitempty"`       // of the last entry
	Leader     string `json:"leader,omitempty"`     // name, as far as it knows
	Generation string `json:"generation,omitempty"` // of its log
	WentBack   bool   `json:"wentBack,omitempty"`   // its disk did: it does not vote, and what it has does not count
}

// received is an answer and who gave it.
type received struct {
	id   string
	body json.RawMessage
}

// call makes one request and returns who answered.
func (c *Cluster) call(ctx context.Context, to netip.AddrPort, op string, in, out any) (string, error) {
	send := func(ctx context.Context) (received, error) { return c.send(ctx, to, op, in) }
	var r received
	var err error
	if c.cfg.hooks != nil {
		r, err = c.cfg.hooks.call(ctx, to, op, send)
	} else {
		r, err = send(ctx)
	}
	if err != nil {
		return r.id, err
	}
	if err := json.Unmarshal(r.body, out); err != nil {
		return r.id, fmt.Errorf("%s: %s: answer: %w", to, op, err)
	}
	return r.id, nil
}

// send is one request on a connection of its own.
func (c *Cluster) send(ctx context.Context, to netip.AddrPort, op string, in any) (received, error) {
	conn, id, err := c.transport.dial(ctx, to, alpnRPC)
	if err != nil {
		return received{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := received{id: id}
	body, err := json.Marshal(in)
	if err != nil {
		return r, fmt.Errorf("%s: %w", op, err)
	}
	if err := writeFrame(conn, request{Version: rpcVersion, Op: op, Body: body}); err != nil {
		return r, fmt.Errorf("%s: %s: %w", to, op, err)
	}
	var a answer
	if err := readFrame(conn, &a); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		// The other side looks at our certificate after we are through with the handshake.
		c.transport.handshakeFailed(to.Addr(), err)
		return r, fmt.Errorf("%s: %s: %w", to, op, err)
	}
	switch {
	case a.Version != rpcVersion:
		return r, fmt.Errorf("%s: %s: answer of version %d, this node knows %d", to, op, a.Version, rpcVersion)
	case a.Code != "":
		return r, &rpcError{code: a.Code, text: a.Text}
	}
	r.body = a.Body
	return r, nil
}

// serveRPC answers the requests of one connection, one after the other.
func (c *Cluster) serveRPC(conn *tls.Conn, peerID string) {
	for {
		conn.SetDeadline(time.Now().Add(rpcIdle))
		var req request
		if err := readFrame(conn, &req); err != nil {
			if !errors.Is(err, io.EOF) {
				c.log.WithError(err).WithField("from", conn.RemoteAddr()).Debug("cluster: request")
			}
			return
		}
		limited, done := context.WithTimeout(c.life, c.timing.propose)
		a := c.answer(limited, conn, peerID, req)
		done()
		if err := writeFrame(conn, a); err != nil {
			c.log.WithError(err).WithField("from", conn.RemoteAddr()).Debug("cluster: answer")
			return
		}
	}
}

func (c *Cluster) answer(ctx context.Context, conn *tls.Conn, peerID string, req request) answer {
	body, err := c.dispatch(ctx, conn, peerID, req)
	a := answer{Version: rpcVersion}
	var refused *rpcError
	switch {
	case errors.As(err, &refused):
		a.Code, a.Text = refused.code, refused.text
	case err != nil:
		a.Code, a.Text = codeRetry, err.Error()
	default:
		if a.Body, err = json.Marshal(body); err != nil {
			a.Code, a.Text = codeRefused, err.Error()
		}
	}
	return a
}

func (c *Cluster) dispatch(ctx context.Context, conn *tls.Conn, peerID string, req request) (any, error) {
	if req.Version != rpcVersion {
		return nil, refusal(codeRefused, "request of version %d, node %s knows %d", req.Version, c.cfg.Name, rpcVersion)
	}
	if how, fenced := c.View().outcast(peerID); fenced && req.Op != opHello {
		return nil, refusal(codeFenced, "%s", how)
	}
	switch req.Op {
	case opHello:
		var in greeting
		if err := json.Unmarshal(req.Body, &in); err != nil {
			return nil, refusal(codeRefused, "hello: %v", err)
		}
		return c.greeted(conn, peerID, in), nil
	case opJoin:
		var in registered
		if err := json.Unmarshal(req.Body, &in); err != nil {
			return nil, refusal(codeRefused, "join: %v", err)
		}
		return c.admit(ctx, remoteAddr(conn), peerID, in)
	case opPropose:
		return c.applyHere(ctx, req.Body)
	case opIndex:
		return c.progress()
	case opReadmit:
		return c.readmitPeer(ctx, peerID)
	}
	return nil, refusal(codeRefused, "request %q is not known to node %s", req.Op, c.cfg.Name)
}

// progress of this node.
func (c *Cluster) progress() (progress, error) {
	n := c.running()
	if n == nil && c.wentBack() {
		return progress{Generation: c.generationNow(), WentBack: true}, nil
	}
	if n == nil {
		return progress{}, refusal(codeRetry, "node %s is not a member yet", c.cfg.Name)
	}
	p := progress{Last: n.LastIndex(), Applied: c.View().Index(), Generation: c.generationNow()}
	if leader := c.leader(); leader != "" {
		p.Leader = c.View().nameOf(leader)
	}
	var err error
	if p.Term, _, _, err = lastEntry(c.store, c.snapshots); err != nil {
		c.log.WithError(err).Debug("cluster: the newest entry")
	}
	return p, nil
}

// A frame is its length in four bytes, big endian, and that much JSON.
func writeFrame(w io.Writer, v any) error {
	frame := make([]byte, 4, 512)
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(body), maxFrame)
	}
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return fmt.Errorf("a frame of %d bytes, at most %d are allowed", size, maxFrame)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}

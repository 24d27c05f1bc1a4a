package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerLimit is how long the plugin may take. It answers any call within 30 s, even if it hangs.
	answerLimit = 35 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes: 100,000 endpoints are some 20 MB.
	maxAnswer = 256 << 20
)

// call sends a request to the plugin and returns its answer.
func (s *session) call(ctx context.Context, method string, request any) ([]byte, error) {
	to, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, to) },
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://carrick/Carrick."+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, explain(ctx, err, to)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, explain(ctx, err, to)
	}
	if res.StatusCode == http.StatusOK {
		return answer, nil
	}
	var refusal struct{ Err string }
	if err := json.Unmarshal(answer, &refusal); err != nil || refusal.Err == "" {
		return nil, fmt.Errorf("plugin %s answers %s, which is not Carrick's way: is it another version?", to.name(), res.Status)
	}
	return nil, fmt.Errorf("plugin %s: %s", to.name(), refusal.Err)
}

// explain says in the operator's words why there is no answer.
func explain(ctx context.Context, err error, to socket) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the method and the address, which are ours
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("plugin %s did not answer within %s", to.name(), answerLimit)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("plugin %s ended before it answered; whether it did what it was asked is not known", to.name())
	default:
		return err
	}
}

// ask is call with an answer to be understood.
func (s *session) ask(ctx context.Context, method string, answer any) error {
	raw, err := s.call(ctx, method, struct{}{})
	if err != nil {
		return err
	}
	return understand(raw, answer)
}

func understand(raw []byte, answer any) error {
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("the plugin's answer is not understood, is it another version? %w", err)
	}
	return nil
}

// printJSON shows an answer as it came, for programs.
func (s *session) printJSON(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	if string(raw) == "null" {
		raw = []byte("[]") // a list without elements, in Go's way
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return fmt.Errorf("the plugin's answer is not JSON: %w", err)
	}
	return s.print(b.String() + "\n")
}

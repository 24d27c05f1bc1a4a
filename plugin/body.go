package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
)

const (
	// maxBody bounds a request, in bytes. The largest real ones, a network with some hundred auxiliary addresses, are
	// below 64 KiB.
	maxBody = 1 << 20
	// maxDepth bounds the nesting of a request. Docker's go five deep: Options, a port map, its list, a port, its value.
	maxDepth = 32
)

// invalidError is a request that cannot be understood.
type invalidError struct{ text string }

func (e invalidError) Error() string { return e.text }

func invalid(format string, args ...any) error {
	return invalidError{fmt.Sprintf(format, args...)}
}

// readBody reads a request within the limits of size and time.
func readBody(w http.ResponseWriter, r *http.Request, limit time.Duration) ([]byte, error) {
	if err := setReadDeadline(w, time.Now().Add(limit)); err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	var late interface{ Timeout() bool }
	switch {
	case err == nil:
		// From here on net/http reads ahead only to notice that the client goes, which has no time of its own.
		if err := setReadDeadline(w, time.Time{}); err != nil {
			return nil, fmt.Errorf("reading the request: %w", err)
		}
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, invalid("the request is larger than the %d bytes allowed", maxBody)
	case errors.As(err, &late) && late.Timeout():
		return nil, invalid("the request did not arrive whole within %s", limit)
	default:
		return nil, invalid("the request did not arrive whole: %v", err)
	}
}

// setReadDeadline bounds the time a request's body may take; the zero time takes the bound away.
func setReadDeadline(w http.ResponseWriter, at time.Time) error {
	err := http.NewResponseController(w).SetReadDeadline(at)
	if errors.Is(err, http.ErrNotSupported) { // not a connection of net/http's server
		return nil
	}
	return err
}

// decode reads one JSON object into a struct. Numbers in fields without a type keep their text. Unknown fields are
// ignored, for newer engines send more.
func decode(body []byte, into any) error {
	trimmed := bytes.TrimSpace(body)
	switch {
	case len(trimmed) == 0:
		return invalid("the request is empty: the engine repeats a call it got no answer to without its body; the first one may still be at work")
	case trimmed[0] != '{':
		return invalid("the request is not a JSON object: it begins with %q", trimmed[0])
	case deeperThan(trimmed, maxDepth):
		return invalid("the request is nested deeper than the %d levels allowed", maxDepth)
	}
	dec := json.NewDecoder(bytes.NewReader(trimmed))
	dec.UseNumber()
	if err := dec.Decode(into); err != nil {
		return explain(err, len(trimmed))
	}
	if rest := bytes.TrimSpace(trimmed[dec.InputOffset():]); len(rest) > 0 {
		return invalid("the request does not end after its JSON object: %d more bytes follow", len(rest))
	}
	return nil
}

// explain says what is wrong with a request in words that do not need the source of encoding/json.
func explain(err error, size int) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("the request is not whole: it ends after %d bytes in the middle of its JSON", size)
	case errors.As(err, &syntax):
		return invalid("the request is not JSON: byte %d: %v", syntax.Offset, err)
	case errors.As(err, &wrong):
		value, _, _ := strings.Cut(wrong.Value, " ") // "number 12" names the value, which may be long
		return invalid("%s: %s where %s is expected", wrong.Field, jsonWord(value), kindWord(wrong.Type))
	default:
		return invalid("the request is not understood: %v", err)
	}
}

// jsonWord names what encoding/json found.
func jsonWord(value string) string {
	switch value {
	case "string":
		return "text"
	case "bool":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "an object"
	default:
		return "a " + value
	}
}

// kindWord names what was expected.
func kindWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct, reflect.Pointer:
		return "an object"
	default:
		return "a number"
	}
}

// deeperThan says whether objects and lists are nested more than limit deep. What is not JSON it need not judge.
func deeperThan(body []byte, limit int) bool {
	depth, text := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case text && c == '\\':
			i++ // the escaped character is never the end of the text
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

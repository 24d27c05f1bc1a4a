package kernel

import (
	"fmt"
	"strings"
)

// maxRefusals bounds how many of the entries that the kernel refused an error names.
const maxRefusals = 5

// refusals are the entries of a Set that the kernel refused. The others are made.
type refusals struct {
	errs []error
	more int
}

func (r *refusals) add(err error) {
	if len(r.errs) == maxRefusals {
		r.more++
		return
	}
	r.errs = append(r.errs, err)
}

func (r *refusals) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return r
}

func (r *refusals) Error() string {
	texts := make([]string, len(r.errs))
	for i, err := range r.errs {
		texts[i] = err.Error()
	}
	text := strings.Join(texts, "; ")
	if r.more != 0 {
		text += fmt.Sprintf("; and %d more", r.more)
	}
	return text
}

func (r *refusals) Unwrap() []error { return r.errs }

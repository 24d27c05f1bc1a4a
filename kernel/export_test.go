package kernel

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Plan is what Set would do, as commands.
func (k *Kernel) Plan(owner string, want State) ([]string, error) {
	<-k.turn
	defer k.unlock()
	if err := k.prepareShared(want.needs(Shared)); err != nil {
		return nil, err
	}
	_, ops, err := k.plan(want, owner)
	var lines []string
	for _, o := range ops {
		lines = append(lines, strings.Split(o.String(), "\n")...)
	}
	return lines, err
}

// SetPart does the first n requests of a Set, as one that is killed would. Requests that go together are taken apart.
func (k *Kernel) SetPart(owner string, want State, n int) error {
	<-k.turn
	defer k.unlock()
	if err := k.prepareShared(want.needs(Shared)); err != nil {
		return err
	}
	defer k.forget()
	s, ops, err := k.plan(want, owner)
	if err != nil {
		return err
	}
	var single []op
	for _, o := range ops {
		switch o := o.(type) {
		case setEntries:
			for i := range o {
				single = append(single, o[i:i+1])
			}
		case delLinks:
			for i := range o {
				single = append(single, o[i:i+1])
			}
		default:
			single = append(single, o)
		}
	}
	for _, o := range single[:min(n, len(single))] {
		if err := o.apply(s); err != nil {
			return err
		}
	}
	return nil
}

// Busy keeps every Set waiting until release is called.
func (k *Kernel) Busy() (release func()) {
	<-k.turn
	return k.unlock
}

// Audit is what Run does from time to time.
func (k *Kernel) Audit(ctx context.Context) { k.audit(ctx) }

// Listening says whether Run hears of changes.
func (k *Kernel) Listening() bool {
	<-k.turn
	defer k.unlock()
	return k.listening
}

// FakeProc makes a directory stand for /proc.
func (k *Kernel) FakeProc(dir string) (err error) {
	k.proc.fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

// NoAudits keeps Run from its audits: all it knows it has heard.
func (k *Kernel) NoAudits() { k.auditEvery = time.Hour }

// Forgive forgets that there have been repairs: the next does not wait.
func (k *Kernel) Forgive() {
	<-k.turn
	defer k.unlock()
	for _, m := range k.memory {
		m.next, m.repairs = time.Time{}, nil
	}
}

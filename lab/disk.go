package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// disk are the directories of a host that outlive its power.
func disk() []string { return []string{"upper", "work", "docker", "containerd"} }

// Reinstall puts an empty disk into the host: it is switched off, loses all files, and boots with an engine that has nothing
// but Image. Name, addresses and MAC address stay.
func (h *Host) Reinstall(ctx context.Context) error {
	if err := h.PowerOff(ctx); err != nil {
		return err
	}
	if err := h.wipe(); err != nil {
		return err
	}
	if err := h.PowerOn(ctx); err != nil {
		return err
	}
	return h.importImage(ctx)
}

// Clone makes the disk of this host a copy of another's. Both have to be off. Name, addresses and MAC address stay.
func (h *Host) Clone(ctx context.Context, of *Host) error {
	for _, o := range []*Host{h, of} {
		if o.Running() {
			return o.errorf("is on: a disk is copied of a host that is off, to one that is off")
		}
	}
	if err := h.wipe(); err != nil {
		return err
	}
	for _, dir := range disk() {
		out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", of.path(dir), h.path(dir)).CombinedOutput()
		if err != nil {
			return h.errorf("clone %s of %s: %w: %s", dir, of.Name, err, out)
		}
	}
	return nil
}

func (h *Host) wipe() error {
	if h.Running() {
		return h.errorf("is on: its disk is in use")
	}
	for _, dir := range disk() {
		if err := os.RemoveAll(h.path(dir)); err != nil {
			return fmt.Errorf("%s: remove the disk: %w", h.Name, err)
		}
	}
	return nil
}

package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// RemoveNetwork removes a network that Docker has lost, by its identifier, the beginning of it, or its name. Docker's own
// networks are removed by Docker, which cannot be asked here; but whatever is in use has an endpoint, and is left alone.
func (d *Driver) RemoveNetwork(ctx context.Context, idOrName string) error {
	c, err := d.find(idOrName)
	if err != nil {
		return err
	}
	nw, err := d.get(ctx, c.ID)
	if err != nil {
		return err
	}
	defer nw.turn.give()
	if len(nw.endpoints) > 0 {
		var ids []string
		for id := range nw.endpoints {
			ids = append(ids, short(id))
		}
		slices.Sort(ids)
		return fmt.Errorf("network %s has endpoints on this host: %s; remove their containers first: %w", short(nw.ID), list(ids), ErrInvalid)
	}
	return d.delete(ctx, nw)
}

// find returns the one network that is meant.
func (d *Driver) find(idOrName string) (content, error) {
	var found []content
	var known []string
	for _, c := range d.contents() {
		switch {
		case c.ID == idOrName:
			return c, nil
		case idOrName == "":
		case len(idOrName) >= 4 && strings.HasPrefix(c.ID, idOrName), c.Name == idOrName, c.Shared == idOrName:
			found = append(found, c)
		}
		known = append(known, strings.TrimSpace(short(c.ID)+" "+c.Name))
	}
	switch len(found) {
	case 0:
		return content{}, fmt.Errorf("no network of this host is %q; there are: %s: %w", idOrName, list(known), ErrNotFound)
	case 1:
		return found[0], nil
	}
	return content{}, fmt.Errorf("%d networks of this host are %q: say more of the identifier: %w", len(found), idOrName, ErrInvalid)
}

package main

import (
	"fmt"
	"strconv"
)

func (c *command) readdress() error {
	if err := c.parse(3, 3); err != nil {
		return err
	}
	_, hosts, err := c.hosts(c.args[:1])
	if err != nil {
		return err
	}
	return hosts[0].Readdress(c.ctx, c.args[1], c.args[2])
}

func (c *command) mtu() error {
	if err := c.parse(2, 2); err != nil {
		return err
	}
	bytes, err := strconv.Atoi(c.args[1])
	if err != nil {
		return fmt.Errorf("mtu %q: want a number of bytes", c.args[1])
	}
	_, hosts, err := c.hosts(c.args[:1])
	if err != nil {
		return err
	}
	return hosts[0].SetMTU(c.ctx, bytes)
}

func (c *command) clone() error {
	if err := c.parse(2, 2); err != nil {
		return err
	}
	_, hosts, err := c.hosts(c.args)
	if err != nil {
		return err
	}
	return hosts[0].Clone(c.ctx, hosts[1])
}

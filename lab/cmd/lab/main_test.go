package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carricknet/carrick/lab"
)

func TestArguments(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		args string
		want error
		text string
	}{
		{"", flag.ErrHelp, ""},
		{"fly", nil, `unknown verb "fly"`},
		{"down now", flag.ErrHelp, ""},
		{"cut", flag.ErrHelp, ""},
		{"cut host1", lab.ErrNotExist, ""},
		{"heal host1 host2", lab.ErrNotExist, ""},
		{"reboot --name other host1", lab.ErrNotExist, "other"},
		{"exec host1", nil, "want a host and a command"},
		{"kill-plugin host1", flag.ErrHelp, ""},
		{"readdress host1 198.51.100.9", flag.ErrHelp, ""},
		{"mtu host1 many", nil, "many"},
		{"mtu host1 1400", lab.ErrNotExist, ""},
		{"clone host1", flag.ErrHelp, ""},
		{"status", lab.ErrNotExist, ""},
		{"up --engine 1.0", nil, "20.10"},
		{"up --engine 28.5,1.0", nil, "20.10"},
		{"up --hosts 1000", nil, "1 to"},
		{"--name ../x up", nil, "lower case"},
	}
	for _, tt := range tests {
		args := append([]string{"--dir", dir}, strings.Fields(tt.args)...)
		err := run(t.Context(), args, &bytes.Buffer{})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("lab %s: %v", tt.args, err)
		}
	}
	if err := run(t.Context(), []string{"--dir", dir, "down"}, &bytes.Buffer{}); err != nil {
		t.Errorf("down of a lab that is not there: %v", err)
	}
}

func TestDiff(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a": "@@ host: link\nlo\n", "b": "@@ host: link\nlo\ndocker0\n", "none": "hello\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	diff := func(a, b string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), []string{"diff", filepath.Join(dir, a), filepath.Join(dir, b)}, &out)
		return out.String(), err
	}
	if out, err := diff("a", "a"); out != "" || err != nil {
		t.Errorf("a a: %q, %v", out, err)
	}
	if out, err := diff("a", "b"); out != "@@ host: link\n+ docker0\n" || !errors.Is(err, errDiffer) {
		t.Errorf("a b: %q, %v", out, err)
	}
	if _, err := diff("a", "none"); err == nil {
		t.Error("a none: no error")
	}
}

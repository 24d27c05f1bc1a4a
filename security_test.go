package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSecurityPageIsTrue: every test that docs/security.md names is there, and every attack that is tried is on the page.
func TestSecurityPageIsTrue(t *testing.T) {
	raw, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	there := map[string]bool{}
	all := sources(t)
	for _, s := range all {
		for _, found := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(s.text, -1) {
			there[found[1]] = true
		}
	}
	named := map[string]bool{}
	for _, found := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(page, -1) {
		named[found[1]] = true
		if !there[found[1]] {
			t.Errorf("docs/security.md names %s, which is not there", found[1])
		}
	}
	for _, found := range regexp.MustCompile("`([A-Z][A-Za-z0-9]{12,})`").FindAllStringSubmatch(page, -1) {
		name := found[1]
		if named[name] {
			continue
		}
		if !slices.ContainsFunc(all, func(s source) bool { return strings.Contains(s.text, `{"`+name+`", `) }) {
			t.Errorf("docs/security.md names the scenario %s, which is not there", name)
		}
	}
	if len(named) < 20 {
		t.Errorf("docs/security.md names %d tests only", len(named))
	}
	for name := range there {
		if strings.Contains(name, "Attack") && !named[name] {
			t.Errorf("%s is not in docs/security.md", name)
		}
	}
}

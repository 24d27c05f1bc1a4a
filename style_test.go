package main

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Limits of what a reader can hold at once. CONTRIBUTING.md says what to aim for.
const (
	maxFile     = 450 // lines
	maxFunction = 80  // lines, from func to its closing brace
	maxTest     = 120 // lines of a function in a test, which may have a table of cases in it
)

func checkSizes(t *testing.T, all []source) {
	for _, s := range all {
		if n := strings.Count(s.text, "\n"); n > maxFile {
			t.Errorf("%s has %d lines, at most %d are allowed", s.name, n, maxFile)
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			limit := maxFunction
			if s.isTest() {
				limit = maxTest
			}
			if n := s.pos.Position(f.End()).Line - s.pos.Position(f.Pos()).Line + 1; n > limit {
				t.Errorf("%s: %s has %d lines, at most %d are allowed", s.line(f.Pos()), f.Name.Name, n, limit)
			}
		}
	}
}

// checkForbidden: what hides what happens, and when.
func checkForbidden(t *testing.T, all []source) {
	for _, s := range all {
		main := s.ast.Name.Name == "main"
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: func init", s.line(n.Pos()))
				}
				main = s.ast.Name.Name == "main" || s.isTest() && n.Name.Name == "TestMain"
			case *ast.SelectorExpr:
				if why := forbidden(s, n, main); why != "" {
					t.Errorf("%s: %s", s.line(n.Pos()), why)
				}
			}
			return true
		})
	}
}

// forbidden says why a selector must not be there. main says that its function is the one that may end the process.
func forbidden(s source, sel *ast.SelectorExpr, main bool) string {
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	switch x.Name + "." + sel.Sel.Name {
	case "os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln":
		if !main {
			return "only main ends the process"
		}
	case "time.Sleep":
		return "wait for a condition instead of sleeping"
	case "testing.Short":
		return "no test is left out"
	}
	// T, B, F, TB and rapid's T are called t, b, f and tb here.
	if s.isTest() && slices.Contains([]string{"t", "b", "f", "tb", "rt"}, x.Name) && strings.HasPrefix(sel.Sel.Name, "Skip") {
		return "a test does not skip: what it needs is installed, or it fails"
	}
	return ""
}

// TestNothingIsLeftForLater looks into every file that a person has written.
func TestNothingIsLeftForLater(t *testing.T) {
	marks := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"}
	files(t, func(name, text string) {
		for _, mark := range marks {
			if strings.Contains(text, mark) && regexp.MustCompile(`\b`+mark+`\b`).MatchString(text) {
				t.Errorf("%s: %s", name, mark)
			}
		}
	})
}

// checkVirtualTime: tests in a bubble of virtual time carry the tag and the name by which `make check` finds them.
func checkVirtualTime(t *testing.T, all []source) {
	for _, s := range all {
		bubble := slices.Contains(s.imports(), "testing/synctest")
		virtual := strings.HasSuffix(s.name, "_virtual_test.go")
		if bubble && !virtual && !strings.HasSuffix(s.folder(), "test") {
			t.Errorf("%s uses testing/synctest: its name has to end in _virtual_test.go", s.name)
		}
		if !virtual {
			continue
		}
		if !strings.HasPrefix(s.text, "//go:build !race\n") {
			t.Errorf("%s does not begin with //go:build !race", s.name)
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && strings.HasPrefix(f.Name.Name, "Test") && !strings.HasPrefix(f.Name.Name, "TestVirtual") {
				t.Errorf("%s: %s has to be called TestVirtual…", s.line(f.Pos()), f.Name.Name)
			}
		}
	}
}

// checkOptions: what a network may be given has a row in both tables.
func checkOptions(t *testing.T, all []source) {
	options := map[string]bool{}
	for _, s := range all {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || s.isTest() || slices.Contains(outside, s.top()) {
				return true
			}
			for i, name := range v.Names {
				if !strings.HasPrefix(name.Name, "Option") || i >= len(v.Values) {
					continue
				}
				if value, ok := v.Values[i].(*ast.BasicLit); ok {
					options[strings.Trim(value.Value, `"`)] = true
				}
			}
			return true
		})
	}
	if !options["mode"] {
		t.Errorf("the options were not found, only %v", options)
	}
	for _, file := range []string{"README.md", "docs/options.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name := range options {
			if !strings.Contains(string(text), name+"=") {
				t.Errorf("%s does not speak of option %s", file, name)
			}
		}
	}
}

// TestDependencies: each has a reason, in docs/adr, and there is no fork.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob("docs/adr/*-dependencies.md")
	if err != nil || len(found) != 1 {
		t.Fatalf("docs/adr/*-dependencies.md: %v, %v", found, err)
	}
	adr, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	var direct, reasoned []string
	for line := range strings.Lines(string(mod)) {
		words := strings.Fields(line)
		if len(words) > 0 && words[0] == "replace" {
			t.Errorf("go.mod: %s", strings.TrimSpace(line))
		}
		words = slices.DeleteFunc(words, func(w string) bool { return w == "require" })
		if len(words) == 2 && strings.HasPrefix(words[1], "v") { // those with a comment are indirect
			direct = append(direct, words[0])
		}
	}
	for _, m := range regexp.MustCompile("(?m)^- `([^`]+)`: ").FindAllStringSubmatch(string(adr), -1) {
		reasoned = append(reasoned, m[1])
	}
	slices.Sort(direct)
	slices.Sort(reasoned)
	if len(direct) == 0 || !slices.Equal(direct, reasoned) {
		t.Errorf("the direct dependencies are\n%s\n%s gives reasons for\n%s", strings.Join(direct, "\n"), found[0], strings.Join(reasoned, "\n"))
	}
}

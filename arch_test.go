package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/carricknet/carrick"

// layers of the packages, by their first folder; "." is main. A package imports packages of lower layers only.
var layers = map[string]int{
	".":      5,
	"plugin": 4, "cli": 4,
	"bridge": 3, "macvlan": 3, "overlay": 3, "host": 3,
	"driver": 2, "ipam": 2, "dns": 2, "engine": 2,
	"kernel": 1, "cluster": 1, "store": 1,
}

// leaves are what changes files and the kernel, each change a step of package failpoint; nobody else needs it.
var leaves = []string{"kernel", "cluster", "store"}

// planMayImport: plans turn records into data and do nothing. overlay stands on bridge: its half on this host is one.
var planMayImport = []string{"driver", "kernel", "bridge"}

// outside are the folders that test and show the program. They import nothing of it, except e2e the lab.
var outside = []string{"lab", "e2e", "bench", "crash"}

// ownerOf says which one package may import a library. Prefixes of import paths; what is not named, none may import.
var ownerOf = map[string]string{
	"github.com/docker/go-plugins-helpers": "plugin",
	"github.com/vishvananda/netlink":       "kernel",
	"github.com/vishvananda/netns":         "kernel",
	"github.com/google/nftables":           "kernel",
	"github.com/mdlayher/netlink":          "kernel", // a type in an option of nftables
	"github.com/hashicorp/memberlist":      "cluster",
	"github.com/hashicorp/raft":            "cluster",
	"github.com/hashicorp/go-hclog":        "cluster",
	"github.com/sirupsen/logrus":           "any",
	"golang.org/x/sys":                     "any",
	"golang.org/x/sync":                    "any",
	"pgregory.net/rapid":                   "tests",
	"github.com/anishathalye/porcupine":    "cluster", // its tests
}

// source is one parsed file of the repository.
type source struct {
	name string // path from the root, "kernel/state.go"
	text string
	ast  *ast.File
	pos  *token.FileSet
}

func (s source) folder() string { return path.Dir(s.name) }
func (s source) top() string    { return top(s.folder()) }
func (s source) isTest() bool   { return strings.HasSuffix(s.name, "_test.go") }
func (s source) line(p token.Pos) string {
	return s.name + ":" + strconv.Itoa(s.pos.Position(p).Line)
}

// imports yields the paths that a file imports.
func (s source) imports() []string {
	var all []string
	for _, i := range s.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			panic(err) // the parser has read it
		}
		all = append(all, p)
	}
	return all
}

// top is the first folder of a path, "." for the root.
func top(folder string) string {
	first, _, _ := strings.Cut(folder, "/")
	return first
}

// files calls do for every file of the repository that a person has written.
func files(t *testing.T, do func(name, text string)) {
	t.Helper()
	written := regexp.MustCompile(`\.(go|md|sh|json|conf|mod)$|^[A-Z][A-Za-z]*$|^scripts/|^\.ci/`)
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "build"):
			return fs.SkipDir
		case !d.Type().IsRegular() || !written.MatchString(name):
			return nil
		}
		b, err := os.ReadFile(name)
		if err == nil {
			do(name, string(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file, whatever its build tags. What is in a testdata folder belongs to no package of ours.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	files(t, func(name, text string) {
		if !strings.HasSuffix(name, ".go") || strings.Contains(name, "testdata/") {
			return
		}
		pos := token.NewFileSet()
		f, err := parser.ParseFile(pos, name, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{name, text, f, pos})
	})
	if len(all) < 10 {
		t.Fatalf("only %d Go files: this is not the repository", len(all))
	}
	return all
}

// TestTree reads the sources once and looks at them in many ways.
func TestTree(t *testing.T) {
	all := sources(t)
	for name, check := range map[string]func(*testing.T, []source){
		"Layers":          checkLayers,
		"Libraries":       checkLibraries,
		"StandardLibrary": checkStandardLibrary,
		"PackageComments": checkPackageComments,
		"Sizes":           checkSizes,
		"Forbidden":       checkForbidden,
		"VirtualTime":     checkVirtualTime,
		"Ledger":          checkLedger,
		"Options":         checkOptions,
		"Steps":           checkSteps,
	} {
		t.Run(name, func(t *testing.T) { check(t, all) })
	}
}

// checkLayers: arrows point down only. See docs/architecture.md.
func checkLayers(t *testing.T, all []source) {
	for _, s := range all {
		for _, imported := range s.imports() {
			of, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			of = strings.TrimPrefix(of, "/")
			if of == "" {
				of = "."
			}
			if why := mayImport(s, of); why != "" {
				t.Errorf("%s imports %s: %s", s.name, imported, why)
			}
		}
	}
}

// mayImport says what is wrong with s importing our package of.
func mayImport(s source, of string) string {
	from, to := s.top(), top(of)
	switch {
	case of == "docs/report":
		if !s.isTest() {
			return "only tests report"
		}
		return ""
	case slices.Contains(outside, from):
		if to != from && (from == "lab" || to != "lab") {
			return from + " stands outside the program and imports nothing of it"
		}
		return ""
	case to == "failpoint" && slices.Contains(leaves, from):
		return ""
	case slices.Contains(outside, to):
		return "only tests outside the program import " + to
	case layers[from] == 0 || layers[to] == 0:
		return "one of the two has no layer"
	case strings.HasSuffix(of, "test") && !s.isTest() && !strings.HasSuffix(s.folder(), "test"):
		return "what is for tests is imported by tests"
	case from == to:
		return ""
	case layers[from] == 3 && !s.isTest() && slices.Contains(planMayImport, to):
		return ""
	case layers[from] == 3 && !s.isTest():
		return "a plan imports only " + strings.Join(planMayImport, ", ")
	case layers[to] >= layers[from]:
		return "arrows point down only"
	}
	return ""
}

// checkLibraries: what is outside is known to one package, so that it can be changed there.
func checkLibraries(t *testing.T, all []source) {
	for _, s := range all {
		for _, imported := range s.imports() {
			if !strings.Contains(top(imported), ".") || strings.HasPrefix(imported, module) {
				continue
			}
			owner := "nobody"
			for library, o := range ownerOf {
				if imported == library || strings.HasPrefix(imported, library+"/") {
					owner = o
				}
			}
			if owner != "any" && owner != s.top() && (owner != "tests" || !s.isTest() && !strings.HasSuffix(s.folder(), "test")) {
				t.Errorf("%s imports %s, which belongs to %s", s.name, imported, owner)
			}
		}
	}
}

// checkStandardLibrary: who may speak HTTP, and that a plan cannot do anything.
func checkStandardLibrary(t *testing.T, all []source) {
	io := []string{"net", "net/http", "os", "os/exec", "syscall", "golang.org/x/sys/unix", "io/fs", "path/filepath", "time"}
	for _, s := range all {
		for _, imported := range s.imports() {
			if (imported == "net/http" || strings.HasPrefix(imported, "net/http/")) && s.top() != "plugin" && s.top() != "cli" {
				t.Errorf("%s imports %s: HTTP is spoken by plugin and cli", s.name, imported)
			}
			if layers[s.top()] == 3 && !s.isTest() && slices.Contains(io, imported) {
				t.Errorf("%s imports %s: a plan is pure", s.name, imported)
			}
		}
	}
}

// checkLedger: what decides about addresses does nothing by itself, so that a simulator can play every history of it again.
func checkLedger(t *testing.T, all []source) {
	io := []string{"context", "io/fs", "net/http", "os", "os/exec", "path/filepath", "sync", "sync/atomic", "syscall", "golang.org/x/sys/unix",
		"github.com/sirupsen/logrus"}
	looked := false
	for _, s := range all {
		if s.folder() != "ipam/ledger" || s.isTest() {
			continue
		}
		looked = true
		for _, imported := range s.imports() {
			if slices.Contains(io, imported) {
				t.Errorf("%s imports %s: the ledger is pure", s.name, imported)
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine: the ledger is pure", s.line(g.Pos()))
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if of, ok := sel.X.(*ast.Ident); ok && (of.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep",
				"NewTimer", "NewTicker", "Tick", "AfterFunc"}, sel.Sel.Name) || of.Name == "rand" && !slices.Contains([]string{"New", "NewPCG", "Rand"}, sel.Sel.Name)) {
				t.Errorf("%s uses %s.%s: time and chance come with the Moment", s.line(sel.Pos()), of.Name, sel.Sel.Name)
			}
			return true
		})
	}
	if !looked {
		t.Error("there is no ledger")
	}
}

// checkPackageComments: each package has one, in doc.go or in its only file; a command has it in main.go.
func checkPackageComments(t *testing.T, all []source) {
	packages := map[string][]source{} // by folder
	for _, s := range all {
		switch {
		case !s.isTest():
			packages[s.folder()] = append(packages[s.folder()], s)
		case s.ast.Doc != nil:
			t.Errorf("%s: the comment of a package does not stand in a test", s.name)
		}
	}
	for folder, its := range packages {
		begins, file := "Package "+its[0].ast.Name.Name+" ", "doc.go"
		if its[0].ast.Name.Name == "main" {
			begins, file = "", "main.go" // "Command demo …", or the name of the program
		} else if len(its) == 1 {
			file = path.Base(its[0].name)
		}
		found := 0
		for _, s := range its {
			if s.ast.Doc == nil {
				continue
			}
			found++
			if path.Base(s.name) != file || !strings.HasPrefix(s.ast.Doc.Text(), begins) {
				t.Errorf("%s: the package comment begins with %q and stands in %s", s.name, begins, file)
			}
		}
		if found != 1 {
			t.Errorf("%s: %d package comments, want 1", folder, found)
		}
	}
}

// checkSteps: what changes files in the leaves is in one file of each, where it is a step of package failpoint.
func checkSteps(t *testing.T, all []source) {
	where := map[string]string{"store": "store/steps.go", "cluster": "cluster/files.go", "kernel": "kernel/step.go"}
	changes := []string{"os.Chmod", "os.Create", "os.CreateTemp", "os.Link", "os.Mkdir", "os.MkdirAll", "os.Remove", "os.RemoveAll",
		"os.Rename", "os.Symlink", "os.Truncate", "os.WriteFile", "unix.Rename", "unix.Unlink"}
	methods := []string{"Truncate", "Sync", "WriteAt"} // of a file, in store: elsewhere others are called so
	for _, s := range all {
		if where[s.folder()] == "" || s.isTest() || s.name == where[s.folder()] {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, _ := sel.X.(*ast.Ident)
			if of != nil && slices.Contains(changes, of.Name+"."+sel.Sel.Name) ||
				slices.Contains(methods, sel.Sel.Name) && s.folder() == "store" {
				t.Errorf("%s: changes of files belong into %s", s.line(call.Pos()), where[s.folder()])
			}
			return true
		})
	}
}

package lab

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseList(t *testing.T) {
	got := parseList(`# deb http://old.example/debian buster main
deb-src http://a.example/debian bookworm main
deb	[arch=amd64 signed-by=/k.gpg]  http://a.example/debian bookworm main contrib  # ours
deb http://b.example/security bookworm-security main
deb http://c.example/flat ./
`)
	want := []source{
		{"http://a.example/debian", []string{"bookworm"}, []string{"main", "contrib"}},
		{"http://b.example/security", []string{"bookworm-security"}, []string{"main"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestParseDeb822(t *testing.T) {
	got := parseDeb822(`# a comment
Types: deb deb-src
URIs: http://a.example/debian
# inside
Suites: bookworm
 bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 URIs: not a field

Enabled: no
Types: deb
URIs: http://b.example/debian
Suites: trixie
Components: main

types: deb
uris: http://c.example/x http://d.example/x
suites: sid
components: main`)
	want := []source{
		{"http://a.example/debian", []string{"bookworm", "bookworm-updates"}, []string{"main"}},
		{"http://c.example/x", []string{"sid"}, []string{"main"}},
		{"http://d.example/x", []string{"sid"}, []string{"main"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestMirror(t *testing.T) {
	tests := []struct{ name, file, text, want string }{
		{"security archive is not whole", "sources.list",
			"deb http://s.example/security bookworm-security main\ndeb http://a.example/debian bookworm main\n", "http://a.example/debian"},
		{"other vendors", "sources.list.d/z.sources",
			"Types: deb\nURIs: https://vendor.example/apt\nSuites: stable\nComponents: contrib\n\n" +
				"Types: deb\nURIs: https://a.example/debian\nSuites: trixie\nComponents: main\n", "https://a.example/debian"},
		{"a switched off file", "sources.list.d/z.sources.off", "deb http://a.example/debian bookworm main\n", ""},
		{"a method that debootstrap lacks", "sources.list", "deb mirror+http://a.example/debian bookworm main\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			etc := t.TempDir()
			path := filepath.Join(etc, tt.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := mirror(etc)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), "no archive of Debian") {
				t.Error(err)
			}
		})
	}
}

func FuzzParseSources(f *testing.F) {
	f.Add("Types: deb\nURIs: x\n y\n\n")
	f.Add("deb [a=b] u s c")
	f.Add(" \n:\n\t:")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseList(text), parseDeb822(text)...) {
			if strings.ContainsAny(s.uri, " \t\n") {
				t.Errorf("uri %q", s.uri)
			}
		}
	})
}

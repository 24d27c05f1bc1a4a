# Targets install the Debian packages they lack, so they work on a fresh Debian 12 with Go, as root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.NOTPARALLEL: # two targets at once would share two cores and one engine

# The settings of config.go; a test compares. `make install SECRET=… JOIN=…` hands them on: make itself exports what stands
# on its command line.
SETTINGS := SECRET JOIN ADVERTISE NODE GOSSIP_PORT RAFT_PORT VXLAN_PORT POOLS LOG_LEVEL
PLUGIN := carrick:latest
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# The linter, pinned here and nowhere else, with the checks it has by default.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# How long each fuzz target runs.
FUZZTIME ?= 10s

# `make bench`: how often everything is measured, and what stands for Docker's overlay, swarm or rebuilt.
BENCH_ROUNDS ?= 10
BENCH_OVERLAY ?= swarm

.PHONY: help build check test size sim sim-sample flaws nemesis crash crash-sample e2e soak bench demo plugin previous dockerfile-test install uninstall lab-up lab-down lint fuzz clean

help: ## Say what can be made
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## Build the binary: build/carrick
	CGO_ENABLED=0 go build -ldflags "-X main.version=$(VERSION)" -o build/carrick .

check: lint ## All that needs no engine: format, vet, lint, unit, property and kernel tests; under 3 minutes
	scripts/prepare gcc libc6-dev ethtool iproute2 nftables procps strace
	@# -count=1: what the tests of kernel and lab find depends on the machine, which Go's cache of results does not know.
	@# Virtual time and the race detector do not go together: those are tagged !race, and run while others wait for clocks. So are those
	@# that meet a race in a library.
	dirs=$$(find . -name '*_virtual_test.go' -o -name '*_norace_test.go' | xargs dirname | sort -u); [ -n "$$dirs" ]; failed=; \
	go test -count=1 -timeout 10m -run '^Test(Virtual|NoRace)' $$dirs & virtual=$$!; \
	go test -race -count=1 -timeout 10m ./... || failed=1; \
	wait $$virtual || failed=1; \
	[ -z "$$failed" ]

test: check size flaws nemesis crash-sample sim-sample e2e ## Everything that is claimed: all of these; an hour

e2e: plugin previous ## The scenarios on real engines: 20.10, 28.5, and a mix with 26.1, unless CARRICK_ENGINES=26.1,… says otherwise
	go test -tags e2e -count=1 -timeout 70m -p 1 -parallel 4 ./lab/... ./e2e/...

soak: plugin ## The long chaos scenarios for SOAK_TIME=1h, lifecycles for LIFECYCLES_TIME=20m, on CARRICK_ENGINES=28.5, CARRICK_SEED=… as before
	CARRICK_SOAK=1 CARRICK_ENGINES=$${CARRICK_ENGINES:-28.5} go test -tags e2e,soak -count=1 -timeout 0 -v -run '^TestSoak' ./e2e/

bench: plugin ## Carrick beside Docker's own networks, half an hour: docs/benchmarks.md; BENCH_ROUNDS=1 for a look
	go run ./bench -rounds $(BENCH_ROUNDS) -overlay $(BENCH_OVERLAY)

size: ## The control plane of 100 nodes in virtual time: all of it once, of which `make check` does a part
	CARRICK_SIZE=all go test -count=1 -timeout 30m -run '^TestVirtualSize$$' -v ./cluster

sim: ## Play SIM_HISTORIES=100000 histories of five hosts that give out addresses, from SIM_SEED=1 on; SIM_RECORD=1 notes it
	SIM_HISTORIES=$${SIM_HISTORIES:-100000} go test -count=1 -timeout 0 -v -run '^TestHistories$$' ./ipam/sim

sim-sample: ## A fifth of them
	SIM_HISTORIES=20000 $(MAKE) sim

flaws: ## Show that the histories find each of the mistakes that are planted, within SIM_WITHIN=3000 of them
	SIM_WITHIN=$${SIM_WITHIN:-3000} go test -tags flaws -count=1 -timeout 0 -v -run '^TestPlantedFlaws$$' ./ipam/sim

nemesis: ## Five nodes under faults for NEMESIS_TIME=10m (8 s), NEMESIS_SEED=… as before, and planted bugs that it must find
	go test -tags nemesis -count=1 -timeout 0 -v -run '^TestNemesis' ./cluster

crash: ## Kill the plugin at each of its changes of files and of the kernel: CRASH_BOTH=1 CRASH_DOUBLES=1000 for more, CRASH_ONLY=overlay for less
	scripts/prepare iproute2 nftables procps strace util-linux
	go test -tags crash -count=1 -timeout 0 -v ./crash

crash-sample: ## Every twentieth of them
	CRASH_EVERY=20 CRASH_DOUBLES=1 CRASH_WORKERS=6 $(MAKE) crash

demo: plugin ## Three hosts and one network, shown as a user would type it; a minute, and a few more the first time
	go run -tags e2e ./e2e/demo

plugin: ## Make build/plugin, ready for `docker plugin create`
	scripts/rootfs build/plugin/rootfs "$(VERSION)"
	install -m 0644 config.json build/plugin/config.json

previous: ## Make build/previous/plugin of the commit before this one, to upgrade from
	scripts/previous build/previous

dockerfile-test: plugin ## Prove that the Dockerfile makes the same root file system (needs an engine)
	scripts/prepare busybox-static
	scripts/dockerfile-test build/plugin/rootfs "$(VERSION)"

install: plugin ## Install on this machine's engine: make install SECRET=… JOIN=…
	@command -v docker >/dev/null || scripts/prepare docker.io
	@scripts/install $(PLUGIN) build/plugin $(SETTINGS)

uninstall: ## The reverse; the plugin's state goes with it
	@[ "$$(docker plugin inspect -f '{{.Enabled}}' $(PLUGIN))" = false ] || docker plugin disable $(PLUGIN)
	docker plugin rm $(PLUGIN)
	rm -f /usr/local/bin/carrick

lab-up: ## Start a lab to try things by hand; LAB="--hosts 2 --engine 20.10"
	go run ./lab/cmd/lab up $(LAB)

lab-down: ## Remove it
	go run ./lab/cmd/lab down

lint: ## Format, vet, staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt -w is missing on:" $$unformatted; exit 1; }
	go vet -tags e2e,soak,nemesis,flaws,crash ./...
	go vet -tags failpoints ./failpoint
	go run $(STATICCHECK) -tags e2e,soak,nemesis,flaws,crash ./...
	go run $(STATICCHECK) -tags failpoints ./failpoint

fuzz: ## Every fuzz target for FUZZTIME each
	@found=$$(grep -rno --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . || true); \
	[ -n "$$found" ] || { echo "no fuzz target found"; exit 1; }; \
	while IFS=: read -r file _ func; do \
		echo "== $${file%/*} $${func#func }"; \
		go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$${file%/*}"; \
	done <<<"$$found"

clean: ## Remove what was built here; `go run ./lab/cmd/lab clean` removes the lab's root file systems
	rm -rf build

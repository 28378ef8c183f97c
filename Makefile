# make demo   shows an update from the stick to the commit on a simulated device
# make test   installs what the tests need and runs every tier up to device tests
# make help   lists the rest

MODULE  := github.com/usb-updater/usb-updater
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PREFIX  ?= /usr
UNITDIR ?= /usr/lib/systemd/system
CATALOGDIR ?= /usr/lib/systemd/catalog
RULESDIR ?= /usr/lib/udev/rules.d
DESTDIR ?=

export CGO_ENABLED := 0
GO      ?= go
# Programs are small because devices are: HTTP/2, which a download does not need,
# would add 400 KB to mender; and functions are inlined only in the packages where
# an installation spends its time, which saves as much in each.
HOT := runtime runtime/... internal/runtime/... internal/bytealg internal/abi internal/cpu sync sync/... bytes io bufio \
	encoding/binary crypto/sha256 crypto/internal/fips140/sha256 hash/... github.com/klauspost/compress/internal/... $(addprefix github.com/klauspost/compress/,zstd huff0 fse) \
	$(addprefix $(MODULE)/internal/,inflate xz artifact install/slot)
GOFLAGS_BUILD := -trimpath -tags nethttpomithttp2 -ldflags "-s -w -X main.version=$(VERSION)" \
	-gcflags=all=-l $(foreach p,$(HOT),-gcflags=$(p)=)
# Most bytes that the programs may have, stripped, on amd64. D-Bus, by which
# usb-updater asks systemd, is 250 KB of it.
MAX_MENDER := 7864320
MAX_USB_UPDATER := 6815744
TOOLS   := .cache/tools
PROGRAMS := mender usb-updater
ARCHES  := amd64 arm64 armv7 riscv64
SHELL_SCRIPTS := .ci/run $(shell grep -lE '^\#!/bin/(ba)?sh' test/* test/vm/* 2>/dev/null)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## build bin/mender and bin/usb-updater, static
	$(GO) build $(GOFLAGS_BUILD) -o bin/ ./cmd/...

.PHONY: test-size
test-size: build ## fail if a program is larger than it may be
	@for p in mender:$(MAX_MENDER) usb-updater:$(MAX_USB_UPDATER); do \
		size=$$(stat -c %s bin/$${p%:*}); \
		echo "$${p%:*}: $$size bytes, at most $${p#*:}"; \
		test "$$(uname -m)" != x86_64 || test "$$size" -le "$${p#*:}" || exit 1; \
	done

.PHONY: cross
cross: $(ARCHES:%=cross-%) ## build both programs for amd64, arm64, armv7 and riscv64

.PHONY: cross-%
cross-%:
	GOOS=linux GOARCH=$(patsubst armv7,arm,$*) GOARM=7 $(GO) build $(GOFLAGS_BUILD) -o bin/linux-$*/ ./cmd/...

.PHONY: install
install: build ## install programs, units, message catalog, udev rule and example configuration below DESTDIR
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(UNITDIR) $(DESTDIR)$(CATALOGDIR) $(DESTDIR)$(RULESDIR)
	install -m 0755 bin/mender bin/usb-updater $(DESTDIR)$(PREFIX)/bin/
	ln -sf mender $(DESTDIR)$(PREFIX)/bin/mender-update
	install -m 0644 systemd/*.service systemd/*.socket $(DESTDIR)$(UNITDIR)/
	install -m 0644 systemd/*.catalog $(DESTDIR)$(CATALOGDIR)/
	install -m 0644 udev/*.rules $(DESTDIR)$(RULESDIR)/
	install -d $(DESTDIR)/etc/usb-updater/health.d $(DESTDIR)$(PREFIX)/share/doc/usb-updater
	install -m 0644 docs/usb-updater.conf.example $(DESTDIR)$(PREFIX)/share/doc/usb-updater/
	install -m 0644 LICENSE LICENSES.md $(DESTDIR)$(PREFIX)/share/doc/usb-updater/

.PHONY: demo
demo: build ## show the main job on a simulated A/B device
	$(GO) build -o bin/demo ./test/demo
	bin/demo -bin bin

.PHONY: test
test: packages build lint test-size test-unit test-nogpl test-device fuzz ## everything up to device tests

.PHONY: packages
packages: ## install the Debian packages that the tests use
	test/install-packages

.PHONY: test-unit
test-unit: ## unit, script and guard tests with the race detector
	@if command -v gcc >/dev/null || [ -n "$$CI" ]; then \
		set -x; CGO_ENABLED=1 $(GO) test -race -shuffle=on -parallel 4 -timeout 10m ./...; \
	else \
		echo "test-unit: gcc is not installed: without the race detector"; \
		set -x; $(GO) test -shuffle=on -timeout 10m ./...; \
	fi

.PHONY: test-skips
test-skips: ## fail if a test was skipped that could have run
	test/check-skips

.PHONY: test-nogpl
test-nogpl: ## the variant without GPL code
	$(GO) test -tags nogpl ./internal/watch/... ./test/guard/...
	$(GO) vet -tags nogpl ./...

.PHONY: test-device
test-device: build ## tests on loop devices and with the real U-Boot; they skip with the reason when not root
	$(GO) test -count=1 -timeout 10m -tags device ./test/device/... ./test/hostile/... ./test/kill/... ./test/uboot/... ./internal/mount/... ./cmd/usb-updater/...

.PHONY: test-powercut
test-powercut: ## cut the power at every write and print what boots
	$(GO) test -count=1 -v -run 'PowerCut|Crash' ./internal/bootenv/... ./internal/install/... ./internal/atomicfile/...

.PHONY: test-vm
test-vm: packages build ## whole virtual devices with U-Boot, GRUB and UBI, three at a time: updates, rollbacks, sticks of all kinds; needs root; RUN: only some
	$(GO) test -count=1 -v -timeout 60m -parallel 3 -tags vm -run "$${RUN:-.}" ./test/vm

.PHONY: test-vm-power
test-vm-power: build ## cut a virtual device's power; ROUNDS, SEED; instead PULLS sticks pulled out, FAULTS I/O errors; BUG: with a deliberate bug
	$(GO) run ./test/power -rounds $${ROUNDS:-50} -pulls $${PULLS:-0} -faults $${FAULTS:-0} -seed $${SEED:-0} -bug "$${BUG:-}"

.PHONY: soak
soak: build ## power cuts, pulled sticks, I/O errors and fuzzing for SOAK minutes (60)
	test/soak $${SOAK:-60}

.PHONY: reliability
reliability: build ## write RELIABILITY.md from test/reliability/results.jsonl, to which what test-vm-power and soak have recorded is moved, and from the tests that cut the power in models
	mkdir -p .cache/power
	touch .cache/power/results.jsonl
	cat .cache/power/results.jsonl >>test/reliability/results.jsonl && rm .cache/power/results.jsonl
	$(MAKE) -s test-powercut >.cache/power/powercut.log
	$(GO) test -count=1 -v -timeout 20m -tags device ./test/kill >.cache/power/kill.log
	$(GO) run ./test/reliability >RELIABILITY.md.new && mv RELIABILITY.md.new RELIABILITY.md

.PHONY: bench
bench: build ## decoding speed and, as root, whole installs; PEERS=1 beside other programs; MEDIA, CODECS, STATES, CPUS, SIZE, ROUNDS: docs/performance.md
	$(GO) run ./test/bench
	@if [ "$$(id -u)" = 0 ]; then \
		set -x; $(GO) run ./test/bench -install -size $${SIZE:-512} -rounds $${ROUNDS:-5} -dir /dev/shm -media $${MEDIA:-ram} \
			-codecs $${CODECS:-gzip,none,zstd,xz} -states $${STATES:-fresh,prev} -cpus $${CPUS:-0} $${PEERS:+-peers $$PEERS}; \
	else \
		echo "bench: not root: whole installs are left out"; \
	fi

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (7s); a finding stays in testdata/fuzz
	test/fuzz-all $${FUZZTIME:-7s}

.PHONY: cover
cover: ## statement coverage by package
	$(GO) test -coverprofile=coverage.out ./... && $(GO) tool cover -func=coverage.out | tail -n 1

.PHONY: lint
lint: $(TOOLS)/ready ## gofumpt, vet, golangci-lint with the import rules, shellcheck, govulncheck
	@unformatted=$$($(TOOLS)/gofumpt -l cmd internal test); test -z "$$unformatted" || { echo "not gofumpt-clean: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) mod verify
	$(GO) mod tidy -diff
	$(TOOLS)/golangci-lint run --allow-parallel-runners ./...
	$(TOOLS)/golangci-lint run --allow-parallel-runners --build-tags device,nogpl,vm ./...
	@if command -v shellcheck >/dev/null || [ -n "$$CI" ]; then \
		set -x; shellcheck $(SHELL_SCRIPTS); \
	else \
		echo "lint: shellcheck is not installed: left out"; \
	fi
	test/vulncheck $(TOOLS)/govulncheck

.PHONY: fmt
fmt: $(TOOLS)/ready ## format the source
	$(TOOLS)/gofumpt -l -w cmd internal test

# The tools have a module of their own, so that what they need never gets into
# the product's go.sum.
$(TOOLS)/ready: tools/go.mod tools/go.sum
	cd tools && $(GO) build -o ../$(TOOLS)/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint mvdan.cc/gofumpt golang.org/x/vuln/cmd/govulncheck github.com/cpuguy83/go-md2man/v2
	touch $@

.PHONY: man
man: $(TOOLS)/ready ## render the man pages into dist/man
	@mkdir -p dist/man
	for f in docs/man/*.md; do $(TOOLS)/go-md2man -in $$f -out dist/man/$$(basename $$f .md); done

.PHONY: install-man
install-man: man ## install the man pages below DESTDIR; they are rendered with the tools of lint
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 0644 dist/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 0644 dist/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist coverage.out

# imgbuild: `make help` says what there is. Everything here runs on a fresh Debian 12 with Go, or EL 9, as root or with sudo.

SHELL := /bin/sh
.DEFAULT_GOAL := help
export CGO_ENABLED := 0
GO ?= go
BIN := build
LDFLAGS := -s -w -X main.version=$(shell git describe --always --dirty 2>/dev/null || echo unknown)
BUILD := $(GO) build -trimpath -ldflags '$(LDFLAGS)'
INSTALLERS := initramfs/installerbin/bin

# Tests that make mounts, loop devices and network namespaces need root; their binaries, and nothing else, run with sudo.
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
EXEC := $(if $(ROOT),-exec '$(ROOT)')
# Real CentOS 7 packages for tests that skip, saying so, where there are none.
export IMGBUILD_EL7 ?= $(abspath $(wildcard ../shared/el7))

.PHONY: help setup setup-test installers build demo test lint unit integration e2e e2e-short bench clean

help: ## print this
	@echo "imgbuild: CentOS-family Linux onto bare metal. Targets:"
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## install the host packages that building and testing need (Debian 12+, EL 9+)
	@scripts/setup.sh

setup-test:
	@scripts/setup.sh test

installers:
	@mkdir -p $(INSTALLERS)
	GOOS=linux GOARCH=amd64 $(BUILD) -o $(INSTALLERS)/installer-amd64 ./cmd/installer
	GOOS=linux GOARCH=amd64 $(BUILD) -tags notorrent -o $(INSTALLERS)/installer-amd64-notorrent ./cmd/installer
	GOOS=linux GOARCH=arm64 $(BUILD) -o $(INSTALLERS)/installer-arm64 ./cmd/installer
	GOOS=linux GOARCH=arm64 $(BUILD) -tags notorrent -o $(INSTALLERS)/installer-arm64-notorrent ./cmd/installer

build: installers ## compile imgbuild (with the installers inside), imgserve, imgctl and testvm into build/
	$(BUILD) -o $(BIN)/imgbuild ./cmd/imgbuild
	$(BUILD) -o $(BIN)/imgserve ./cmd/imgserve
	$(BUILD) -o $(BIN)/imgctl ./cmd/imgctl
	$(BUILD) -o $(BIN)/testvm ./cmd/testvm

demo: setup build ## build an image, install it on a QEMU machine, boot that from its disk (DEMO_PROFILE=, DEMO_FIRMWARE=bios,uefi)
	$(ROOT) $(BIN)/testvm demo $(if $(DEMO_PROFILE),--profile '$(DEMO_PROFILE)') $(if $(DEMO_FIRMWARE),--firmware '$(DEMO_FIRMWARE)')

test: setup-test build lint integration e2e-short ## lint, unit, integration and end-to-end tests; what CI runs, under 45 minutes

lint: ## gofmt, go vet and staticcheck, for all build tags
	@bad=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); [ -z "$$bad" ] || { echo "not gofmt-ed:"; echo "$$bad"; exit 1; }
	$(GO) vet -tags 'integration e2e' ./...
	$(GO) vet ./...
	$(GO) tool staticcheck -tags 'integration e2e' ./...

unit: ## the tests that need neither root nor network
	$(GO) test ./...

integration: build ## unit tests, and those against real dnf, mksquashfs, loop devices, DHCP (root)
	$(GO) test $(EXEC) -tags integration -timeout 20m ./...

e2e-short: build ## install and boot QEMU machines, BIOS and UEFI, good and bad input (root)
	$(GO) test $(EXEC) -tags e2e -short -count=1 -timeout 40m -v ./testvm/e2e

e2e: setup-test build ## the wider matrix of QEMU machines: disks, file systems, network boot (root)
	IMGBUILD_SWARM_FAULTS=all $(GO) test $(EXEC) -tags integration -count=1 -timeout 30m -v ./testvm/swarmnet
	$(GO) test $(EXEC) -tags e2e -p 1 -count=1 -timeout 3h -v ./initramfs ./testvm/e2e

bench: setup-test build ## speed and size figures, each beside its peer tool in the same run (root)
	$(ROOT) scripts/bench.sh

clean: ## remove what make build, demo and bench made (the cache in /var/cache/imgbuild stays)
	rm -rf $(BIN) out $(INSTALLERS)/installer-*

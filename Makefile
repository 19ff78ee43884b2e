# `make help` lists the targets. Only check, build, run, cross and fuzz make do with Go alone.
SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build run test check bench lint fuzz attack help setup vet cross

PROGRAM := build/prefork_exporter
LISTEN  ?= 127.0.0.1:10142

# Nothing is stamped but what stands here, so that the same commit gives the same bytes. There may be no git, or no commit.
VERSION  ?= $(or $(shell sed -n 's/^## \[\([0-9][^]]*\)\].*/\1/p' CHANGELOG.md | head -n 1),dev)
REVISION ?= $(shell git rev-parse -q --verify HEAD 2>/dev/null)
BRANCH   ?= $(shell git symbolic-ref -q --short HEAD 2>/dev/null)
EPOCH    := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null))
DATE     := $(if $(EPOCH),$(shell date -u -d @$(EPOCH) +%Y%m%d-%H:%M:%S 2>/dev/null || date -u -r $(EPOCH) +%Y%m%d-%H:%M:%S))
STAMP    := github.com/prometheus/common/version
LDFLAGS  := -s -w -X $(STAMP).Version=$(VERSION) -X $(STAMP).Revision=$(REVISION) \
	-X $(STAMP).Branch=$(BRANCH) -X $(STAMP).BuildDate=$(DATE)
GOBUILD  := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# The example is a module of its own, so that what it needs is nothing that we need.
MODULES := . multiproc/writer/bridge/example

LINTER         := $(CURDIR)/build/bin/golangci-lint
LINTER_VERSION := 2.15.0

build: ## the static programs: build/prefork_exporter, and the example build/prefork_worker
	$(GOBUILD) -o $(PROGRAM) ./cmd/prefork_exporter
	$(GOBUILD) -o build/prefork_worker ./cmd/prefork_worker

run: build ## build, and show it all: workers, requests, faults, and http://127.0.0.1:10142/metrics
	@exec $(PROGRAM) demo --web.listen-address=$(LISTEN)

test: setup ## everything, beside the real servers and clients (Debian's packages, installed if missing)
	PREFORK_REQUIRE_PEERS=1 go run ./.ci/gotest.go $(MODULES) -race -timeout 20m ./...

check: vet ## the quick one: format, vet, short tests; needs only Go
	@for m in $(MODULES); do go -C $$m test -short ./... || exit; done

vet: ## format and vet
	@unformatted=$$(gofmt -l .); [[ -z $$unformatted ]] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	@for m in $(MODULES); do go -C $$m vet ./... || exit; done

bench: setup ## Go's benchmarks, then ours beside the clients' own merge, supervise under kills and load, and a watched server
	go test -run '^$$' -bench . -benchmem ./...
	go run ./cmd/internal/bench

lint: ## golangci-lint, at its pinned version
	@[[ $$($(LINTER) version --short 2>/dev/null) == $(LINTER_VERSION) ]] || GOBIN=$(CURDIR)/build/bin \
		go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINTER_VERSION)
	@for m in $(MODULES); do (cd $$m && $(LINTER) run ./...) || exit; done

fuzz: ## every fuzz target for FUZZTIME each (30s)
	@.ci/fuzz

attack: setup ## the long forms of the tests that kill, fill, truncate and hang: hours
	PREFORK_ATTACK=1 PREFORK_REQUIRE_PEERS=1 go test -run Attack -count=1 -timeout 0 -v ./...

cross: ## static linux amd64 and arm64 into build/, and all of it compiled for darwin arm64
	GOOS=linux GOARCH=amd64 $(GOBUILD) -o $(PROGRAM)-linux-amd64 ./cmd/prefork_exporter
	GOOS=linux GOARCH=arm64 $(GOBUILD) -o $(PROGRAM)-linux-arm64 ./cmd/prefork_exporter
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go build ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go vet ./...

setup: ## install what the tests run beside us
	@.ci/setup

help: ## these lines
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

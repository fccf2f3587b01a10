# What a person types. The work is in hack/; `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Tests that start a containerd are bound by its disk and fork rate and not by processors: more at a
# time makes each slower and none faster.
TEST_THREADS ?= 4
TEST_ARGS ?=

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: demo
demo: ## a pod from a manifest under a real containerd, from nothing; stays up
	@hack/demo.sh start

.PHONY: demo-stop
demo-stop: ## end the demonstration and remove all that it made
	@hack/demo.sh stop

.PHONY: build
build: ## the release binary, target/release/nodectl
	cargo build --release --locked

.PHONY: test
test: ## install what the tests need and run all of them (root, or sudo)
	@hack/deps.sh test
	@hack/test.sh $(TEST_THREADS) $(TEST_ARGS)

.PHONY: check
check: ## format, lints, shell scripts, licences and advisories of the dependencies
	@hack/check.sh

.PHONY: bench
bench: ## speed and size, beside raw CRI calls
	@hack/deps.sh test
	@hack/test.sh bench

.PHONY: bless
bless: ## write completions, manual pages, usage blocks, docs/configuration.md and docs/pod-spec.md anew
	NODECTL_BLESS=1 cargo test --locked --test drift
	NODECTL_BLESS=1 cargo test --locked --lib config::tests::docs

.PHONY: clean
clean: ## remove what was built and end a demonstration
	@hack/demo.sh stop
	cargo clean

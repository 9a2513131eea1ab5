# NovaCron. `make help` lists what can be made.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: build
build: ## Build the binary `novacron` (debug).
	cargo build

.PHONY: demo
demo: ## Three nodes with a real hypervisor each, on this machine: real VMs boot, stop, start, go. YES=1 SIM=1 ONCE=1
	scripts/demo

.PHONY: demo-down
demo-down: ## Ends what a demo that crashed left behind.
	target/debug/novacron-demo --down

.PHONY: dev
dev: ## A three-node cluster in one process, with simulated hosts. Ctrl-C ends it.
	cargo run --quiet -- dev

.PHONY: test
test: ## Everything that proves the project. Says plainly what was skipped and why.
	scripts/test

# Runs begin with nodes of an earlier version, where there is one; it is made by the same recipe.
PREVIOUS = $$(test ! -x target/previous/novacron || echo --previous target/previous/novacron)

.PHONY: chaos
chaos: ## Five nodes under faults of every kind, and what must hold; needs root. About 6 minutes. SEED=…
	scripts/packages
	scripts/cargo-all build
	scripts/previous
	target/debug/chaos-tests run --seconds 240 $(PREVIOUS) $(if $(SEED),--seed $(SEED))

.PHONY: planted
planted: ## The same with bugs on purpose, one after the other, each until it is noticed. 15 minutes and more.
	scripts/packages
	scripts/cargo-all build
	target/debug/chaos-tests planted

.PHONY: soak
soak: ## The same for HOURS=2, in runs of half an hour that are summed; it goes on where it was left.
	scripts/packages
	scripts/cargo-all build
	scripts/previous
	target/debug/chaos-tests soak --hours $(or $(HOURS),2) $(PREVIOUS)

.PHONY: bench
bench: ## How fast it is, beside etcd, virsh and the disk: writes docs/benchmarks.md. About 40 minutes; real guests need root.
	scripts/packages etcd-server
	cargo build --release -p novacron -p novacron-benchmarks -p novacron-lab -p novacron-driver-libvirt
	target/release/benchmarks --page docs/benchmarks.md --json docs/benchmarks.json

.PHONY: bench-growth
bench-growth: ## How it grows, with nodes, with VMs and over late links: writes docs/growth.md. Long; late links need root.
	scripts/packages
	cargo build --release -p novacron -p novacron-benchmarks
	target/release/benchmarks --growth --page docs/growth.md --json docs/growth.json

.PHONY: check
check: ## Formatting and lints; changes nothing.
	cargo fmt --all --check
	scripts/cargo-all clippy --all-targets -- -D warnings

.PHONY: deny
deny: ## Licences, duplicate crates and sources of all dependencies; needs cargo-deny (cargo install --locked cargo-deny).
	cargo deny check licenses bans sources

.PHONY: fuzz
fuzz: ## Walk the whole API with made-up requests (schemathesis); needs `make build`. EXAMPLES=150 SEED=…
	scripts/fuzz

.PHONY: fix
fix: ## Format the code.
	cargo fmt --all

.PHONY: snapshots
snapshots: ## Write test snapshots and transcripts anew; review the difference.
	UPDATE=1 INSTA_UPDATE=always cargo test -p novacron-domain
	UPDATE=1 cargo test -p novacron --test api reference

# The daily commands; `make help` lists them. demo and test install what they need and can be
# run again: apt packages where they are missing (as root, or by sudo), the rest in .venv.

VENV := .venv
BIN := $(VENV)/bin

# What tests run of Debian's, unpacked and not installed.
PACKAGES := nginx-light postgresql bind9 unbound knot vsftpd freeradius freeradius-utils rsyslog \
	systemd netplan.io nftables iproute2 \
	procps kmod coreutils dash diffutils grep sed util-linux base-passwd base-files

# The engines of high availability, which tests start, and a router's BGP for the other end.
ENGINES := keepalived bird:bird2 /usr/lib/frr/bgpd:frr

# A machine of another Debian release has what this one lacks to begin: make itself.
IN_DEBIAN := scripts/as-root scripts/in-debian
BEGIN := scripts/system-packages make

.PHONY: help demo demo-pair test test-vm test-packages test-debian13 test-fresh soak check bench format package golden clean .packages .engines

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.runtime ## a network of namespaces, real traffic, Direct Server Return explained
	@scripts/as-root $(BIN)/tula lab demo

demo-pair: $(VENV)/.runtime ## several balancers, by VRRP and by BGP: one dies while downloads run
	scripts/system-packages keepalived bird:bird2
	@scripts/as-root $(BIN)/tula lab demo --pair

test: $(VENV)/.dev check .packages .engines ## everything: check, then the kernel and packets (needs root)
	scripts/packet-tests

test-vm: $(VENV)/.dev .packages ## the tests of K=EXPRESSION or T=PATH in a VM with Debian's stock kernel
	scripts/vm $(or $(T),tests/contract tests/packets) $(if $(K),-k '$(K)',$(if $(T),,-m link_kinds))

test-packages: $(VENV)/.dev package ## the packages on machines of Debian 12 and 13 that systemd boots: their whole life (root)
	scripts/system-packages debootstrap systemd-nspawn:systemd-container
	scripts/as-root $(BIN)/pytest -s tests/installed

test-debian13: ## check and the tests with packets on Debian 13: its nft, iproute2, Python (root)
	$(IN_DEBIAN) trixie sh -ec '$(BEGIN); make check .packages .engines; scripts/packet-tests --without-vm'

test-fresh: ## make demo and make check on machines of Debian 12 and 13 that have nothing yet (root)
	$(IN_DEBIAN) --fresh bookworm sh -ec '$(BEGIN); make demo check'
	$(IN_DEBIAN) --fresh trixie sh -ec '$(BEGIN); make demo check'

soak: $(VENV)/.dev .packages .engines ## what takes long: changes for minutes, hundreds of kills, an hour of 2,000 probes a second (root)
	@mkdir -p .vm
	scripts/as-root env TULA_SOAK=1 $(BIN)/pytest -s --left-for-vm .vm/left \
		tests/packets/test_fuzz.py tests/packets/test_connection_churn.py \
		tests/packets/test_apply_killed.py \
		tests/packets/test_daemon_churn.py tests/packets/test_daemon_killed.py \
		tests/packets/test_health_matrix.py \
		tests/packets/test_tunnel_uploads.py tests/packets/test_tunnel_changes.py \
		tests/packets/test_backend_life.py tests/packets/test_backend_sizes.py \
		tests/packets/test_backend_files.py tests/packets/test_doctor_far.py \
		tests/packets/test_backend_join.py tests/packets/test_kernel_kinds.py \
		tests/packets/test_probe_path.py tests/packets/test_readme.py \
		tests/packets/test_full_table.py tests/packets/test_apply_under_load.py \
		tests/api/test_openapi.py tests/api/test_ownership.py \
		tests/api/test_killed_writes.py \
		tests/packets/test_flush.py tests/packets/test_operators_day.py \
		tests/packets/test_shared_flows.py tests/packets/test_beside_ipvs.py \
		tests/packets/test_failover_pair.py tests/packets/test_failover_three.py \
		tests/packets/test_failover_many.py tests/packets/test_vrrp.py \
		tests/packets/test_busy_machine.py tests/packets/test_upgrade_pair.py \
		tests/packets/test_notify.py tests/unit/daemon/test_notify_pipeline.py \
		tests/packets/test_million_connections.py tests/packets/test_persistence.py \
		tests/packets/test_persistence_pair.py tests/packets/test_admission.py \
		tests/packets/test_peers_flows.py tests/packets/test_accepting.py
	TULA_SOAK=1 scripts/vm --left .vm/left -s
	scripts/as-root $(BIN)/python bench/probes.py --kind http --soak $(or $(TULA_SOAK_SECONDS),3600)

check: $(VENV)/.dev ## the quick part: lint, types, directions, unit tests, golden rulesets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest tests/unit tests/golden --numprocesses 2

bench: $(VENV)/.runtime .engines ## all figures of docs/benchmarks.md; with BESIDE=CHECKOUT, another commit in the same run
	bench/get-nftlb $(VENV)/nftlb
	scripts/as-root $(BIN)/python bench/packets.py --svg docs/packets.svg $(BESIDE:%=--beside %)
	scripts/as-root $(BIN)/python bench/flows.py
	scripts/as-root $(BIN)/python bench/persistence.py
	scripts/as-root $(BIN)/python bench/admission.py
	scripts/as-root $(BIN)/python bench/own_backend.py
	scripts/as-root $(BIN)/python bench/scale.py $(BESIDE:%=--beside %)
	scripts/as-root $(BIN)/python bench/adjust.py
	scripts/as-root $(BIN)/python bench/health.py
	scripts/as-root $(BIN)/python bench/failover.py
	scripts/as-root $(BIN)/python bench/failover_pair.py
	scripts/as-root $(BIN)/python bench/notify.py
	scripts/as-root $(BIN)/python bench/probes.py
	scripts/as-root $(BIN)/python bench/held.py
	scripts/as-root $(BIN)/python bench/api.py

format: $(VENV)/.dev ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

package: $(VENV)/.dev ## packages of the last commit in dist/: .deb for Debian 12 and 13, wheel, sdist
	scripts/system-packages dpkg-deb:dpkg readelf:binutils \
		x86_64-linux-gnu-strip:binutils-x86-64-linux-gnu \
		aarch64-linux-gnu-strip:binutils-aarch64-linux-gnu
	PYTHONPATH=packaging $(BIN)/python -m tula_package --output dist

golden: $(VENV)/.dev ## write the expected rulesets and messages anew, to be read in the diff
	$(BIN)/pytest tests/unit tests/golden --update

clean: ## remove what the other targets made here
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .vm .packages .roots

.packages: $(VENV)/.dev
	scripts/debian-root $@ $(PACKAGES)

.engines:
	scripts/system-packages $(ENGINES)

$(VENV)/.runtime: pyproject.toml constraints.txt scripts/system-packages
	scripts/system-packages
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	scripts/system-packages curl
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

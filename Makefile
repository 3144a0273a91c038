# Every target works on a fresh clone with nothing but Python 3.11+, git, make and a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# As pruning_core.machine.threads does for the product: threads that wait must not take cores from those that work.
export OMP_WAIT_POLICY ?= passive
# Two at a time suits the two cores of a CI machine; TEST_ARGS="-n 0 -k name" runs one by one.
TEST_ARGS ?= -n 2

.DEFAULT_GOAL := help
.PHONY: docs test-ci engines test-engines help install demo serve servers test test-dists dist sbom lock check lint types imports bench-headlines bench-training bench-accuracy bench-prune bench-solvers bench-frontier bench-bytes bench-vocabulary bench-statistics bench-memory bench-streaming bench-reach bench-speedup bench-patterns bench-blocks bench-families bench-stages bench-forms bench-engines bench-evaluation test-matrix test-faults test-attacks test-cases case-libraries test-mutations chaos soak bench-service bench-fleet bench-claims gpu gpu-pack clean fuzz audit settings-page architectures pipelines same bench-decoders bench-healing peers

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# One stamp a set of extras, of both distributions; rebuilt when the requirements change.
$(VENV)/.%: pyproject.toml deploy/server/pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing for $* into $(VENV): some 3 GB, PyTorch above all, in a few minutes" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[$*]' --editable 'deploy/server[$*]'
	@touch $@

install: $(VENV)/.dev ## Install everything that developing needs into .venv

demo: $(VENV)/.demo ## Prune a real model end to end: service, HTTP job, download, proof; SERVE=1 leaves the pages up
	@rm -rf demo-bundle
	@$(BIN)/python -m coppice.demo $(if $(SERVE),--serve)

serve: $(VENV)/.demo ## Run API and worker on http://127.0.0.1:8000; ROOTS="/models /data" are folders that jobs may name
	@$(BIN)/coppice serve $(addprefix --allow-root ,$(ROOTS))

servers: # Redis and PostgreSQL for the integration tests, where they can be installed
	@sh tests/install_servers.sh

test: install servers ## Run every test but the fault set, the long attacks, the fuzzer, the whole matrix of combinations and true installs
	$(BIN)/python -m pytest -m "not fault and not fuzz and not matrix and not registry and not engine and (not attack or short)" $(TEST_ARGS)

# What CI runs of them, in a third less time.
test-ci: install servers
	$(BIN)/python -m pytest -m "not long and not fault and not fuzz and not matrix and not registry and not engine and (not attack or short)" $(TEST_ARGS)

SITE := app/web/site

# In environments of their own: each wants a torch or a compiler of its own. tests/engines.txt pins their versions.
ENGINES ?= vllm llama-cpp mlx openvino
engines: install ## Build the environments of the engines that bundles are run in, in .venv/engines; ENGINES="vllm mlx" builds some
	@for name in $(ENGINES); do sh tests/install_engine.sh $$name $(VENV)/engines $(PYTHON) || exit 1; done
	@$(BIN)/coppice engines

test-engines: install ## The tests that run bundles in engines, those that are there; COPPICE_ENGINES_DIR names another folder than make engines fills
	$(BIN)/python -m pytest -m engine -n 0 $(ENGINES_ARGS)

test-matrix: install ## Every cell: methods by architectures, tasks, shards and phases, each from the request to the proof
	$(BIN)/python -m pytest -m matrix $(TEST_ARGS)

dist: install docs ## Build both distributions into dist/, and check what the index will read of them
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist deploy/server
	$(BIN)/python -m twine check --strict dist/*

sbom: install ## Write the bills of materials of both distributions, in CycloneDX, into dist/
	$(BIN)/python -m tests.sbom dist

# In an environment of its own, as below: it is needed for nothing else.
$(VENV)/locks/bin/uv: | install
	$(PYTHON) -m venv $(VENV)/locks
	$(VENV)/locks/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

lock: install $(VENV)/locks/bin/uv ## Lock what images and releases install, with hashes, in deploy/requirements
	$(BIN)/python -m tests.locks $(VENV)/locks/bin/uv

test-dists: install ## Install both distributions from the registry into empty environments: load a bundle, start the service
	$(BIN)/python -m pytest -m registry -n 0 tests/integration/test_distributions.py

# In an environment of its own: what it needs does not go together with what the product needs.
$(VENV)/generator/bin/openapi-python-client: | install
	$(PYTHON) -m venv $(VENV)/generator
	$(VENV)/generator/bin/python -m pip install --quiet --disable-pip-version-check openapi-python-client==0.29.1

fuzz: install $(VENV)/generator/bin/openapi-python-client ## Schemathesis over the whole contract, and a client made of it by a public generator; FUZZ_EXAMPLES=100 looks longer
	$(BIN)/python -m pytest -m fuzz -n 0 tests/contract

# In environments of their own: each brings a hundred packages, and Prefect's server does not start with newer FastAPIs.
pipelines: install ## What the tests of the Prefect and Airflow examples need
	$(PYTHON) -m venv $(VENV)/prefect
	$(VENV)/prefect/bin/python -m pip install --quiet --disable-pip-version-check 'prefect>=3.8,<4' 'fastapi<0.150' --editable .
	$(PYTHON) -m venv $(VENV)/airflow
	$(VENV)/airflow/bin/python -m pip install --quiet --disable-pip-version-check 'apache-airflow>=3.3,<4' --editable .

audit: install ## Known vulnerabilities of the pinned dependencies, where the data can be reached
	@$(BIN)/python -m tests.audit

# Tests of full disks mount small ones: in a mount namespace of their own, where that is allowed.
PRIVATE_MOUNTS := $(shell if [ "$$(id -u)" = 0 ]; then f="--mount"; else f="--map-root-user --mount"; fi; \
	unshare $$f true 2>/dev/null && echo unshare $$f)

test-faults: install servers ## The fault table on real processes, both profiles, printed row by row
	$(PRIVATE_MOUNTS) $(BIN)/python -m pytest tests/faults -q --timeout=300 $(TEST_ARGS)

# One at a time: each is watched by itself. ATTACKS="-k Parquet" takes some of them.
test-attacks: install servers ## Every attack on a real API and worker, health and memory watched, printed as a table; ATTACKS="-k Parquet" takes some
	$(BIN)/python -m pytest tests/attacks -m attack -n 0 -q --tb=line $(ATTACKS)

test-cases: install ## Cases as users bring them, as a table: CASES=../shared/cases runs a folder of such, ONLY=name some of them; ours by default
	$(BIN)/python -m tests.cases $(CASES) $(if $(ONLY),--only $(ONLY)) $(CASES_ARGS)

# What some cases of ../shared/cases take from beside them: a library that is none of ours, and an old one.
case-libraries: install # Where the registry can be reached; cases say what they skip without
	$(BIN)/python -m pip install --quiet --target $(VENV)/case-libraries/lib-sentencepiece sentencepiece
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/case-libraries/lib-transformers4 transformers==4.55.4 tokenizers==0.21.4 huggingface-hub==0.34.4

EXAMPLES ?= 2000
test-mutations: install ## Good specs, models and data spoilt at random: each is refused by check in a sentence, or done; EXAMPLES=200 tries fewer
	$(BIN)/python -m tests.mutations --examples $(EXAMPLES) $(MUTATIONS_ARGS)

chaos: install servers ## 500 jobs on 2 workers while faults are drawn at random; CHAOS_ARGS="--seed 7" repeats a draw
	$(BIN)/python -m tests.faults.chaos $(CHAOS_ARGS)

soak: install servers ## An API and two workers under a mixed load with faults and deletions for 30 minutes, watched for growth
	$(BIN)/python -m tests.faults.soak $(SOAK_ARGS)

lint: install ## Formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install ## Types, strict
	$(BIN)/pyright

imports: install ## The one-way rule
	$(BIN)/lint-imports

docs: install ## Build the documentation into app/web/site, where the service shows it at /docs; a warning is an error
	@rm -rf $(SITE)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --builder html --doctree-dir build/doctrees docs $(SITE)

check: lint types imports audit docs test-ci ## What CI runs: lint, types, import rules, audit, documentation, migration drift, and the tests but those that take a minute

# TRAINING_ARGS="--tasks stsb --structures 2:4 --seeds 0": some of them.
bench-training: install ## Group Lasso and ADMM from dense weights, beside the one-shot tiers, hard pruning and the papers' penalties
	$(BIN)/python -m benchmarks.training $(TRAINING_ARGS)

# HEADLINES_ARGS="--tasks glosses --out FOLDER": one of them, and a folder that keeps models and figures.
bench-headlines: install ## Quality kept on tasks that no default was chosen on, made of Debian packages, beside baselines with the same repair
	$(BIN)/python -m benchmarks.headlines $(HEADLINES_ARGS)

# DECODERS_ARGS="--keeps 0.8 --ways fisher-cg FLAP --out FOLDER": some cells; --only-table: those that are there; --final: all texts.
bench-decoders: install ## A real decoder pruned by the defaults and by ten peers, perplexity in and off domain with paired intervals; cells are kept
	$(BIN)/python -m benchmarks.decoders $(DECODERS_ARGS)

# HEALING_ARGS="--subjects sst2 --keeps 0.3 --steps 2000": some cells, and steps in place of minutes where the machine is busy.
bench-healing: install ## A classifier and a real decoder, pruned, repaired and healed: in and off domain, with paired intervals; cells are kept
	$(BIN)/python -m benchmarks.healing $(HEALING_ARGS)

# Each in an environment of its own; COPPICE_PEERS_DIR names another folder than this fills.
PEERS ?= llmcompressor torch_pruning modelopt
peers: install ## Build the environments of the packages that bench-decoders compares with, in .venv/peers
	@for name in $(PEERS); do sh tests/install_engine.sh $$name $(VENV)/peers $(PYTHON) benchmarks/decoders/elsewhere/peers.txt || exit 1; done

bench-accuracy: install ## Quality kept by the defaults on the models of ../shared; ACCURACY_ARGS="--ways fisher-cg 'magnitude, same repair'"
	$(BIN)/python -m benchmarks.accuracy $(ACCURACY_ARGS)

bench-prune: install ## Pruning time by stage, beside one forward + backward and the published recoveries
	$(BIN)/python -m benchmarks.prune

bench-solvers: install ## CG, PCG, Cholesky and LSMR on the real Grams of the models of ../shared
	$(BIN)/python -m benchmarks.solvers

bench-frontier: install ## Eight budgets in one job beside one
	$(BIN)/python -m benchmarks.frontier

bench-bytes: install ## One budget of bytes for widths and storage types, beside pruning alone and rounding alone
	$(BIN)/python -m benchmarks.bytes $(BYTES_ARGS)

bench-vocabulary: install ## A vocabulary cut to what the training rows need, beside the whole one, at the same number of parameters, on rows it never saw
	$(BIN)/python -m benchmarks.vocabulary $(VOCABULARY_ARGS)

bench-statistics: install ## What a second target costs, where the first has kept what it found out about the dense model
	$(BIN)/python -m benchmarks.derived $(STATISTICS_ARGS)

bench-memory: install ## Peak memory of pruning a BERT-base on 2048 samples of 128 tokens
	$(BIN)/python -m benchmarks.memory

bench-reach: install ## One random model of real size per family, 67 M to 1.4 G parameters, from the request to the proof; REACH_ARGS="--families bert gpt2"
	$(BIN)/python -m benchmarks.reach $(REACH_ARGS)

bench-streaming: install ## A model several times larger than a limit of memory: pruned with paged weights, beside all in memory
	$(BIN)/python -m benchmarks.streaming

bench-speedup: install ## Dense and pruned latency over batch sizes and lengths, and memory of inference
	$(BIN)/python -m benchmarks.speedup

bench-patterns: install ## Quality kept by sparsity patterns, all ways of choosing them side by side, and the time it takes; PATTERNS_ARGS=--trained trains
	$(BIN)/python -m benchmarks.patterns $(PATTERNS_ARGS)

bench-blocks: install ## Quality kept by block sparsity, one shot and trained, beside magnitude at the same budget
	$(BIN)/python -m benchmarks.blocks

bench-forms: install ## Size and time of ONNX, int8 and OpenVINO beside PyTorch; FORMS_ARGS="--decoder FOLDER --text FILE.jsonl": perplexity of quantised forms
	$(BIN)/python -m benchmarks.forms $(FORMS_ARGS)

# SmolLM2-135M-Instruct is the model of our figures. SERVING_ARGS="--only encoder" runs one part.
bench-engines: install ## Bundles in the engines: agreement, speed, the price of the engines' limits; SERVING_ARGS="--model FOLDER"
	$(BIN)/python -m benchmarks.engines $(SERVING_ARGS)

bench-evaluation: install ## What intervals, tests and "where it hurts" cost beside the evaluation itself
	$(BIN)/python -m benchmarks.evaluation

bench-families: install ## Quality kept on small models of every kind, trained here: decoders, encoder-decoders, ViT; FAMILIES_ARGS="--families gpt2"
	$(BIN)/python -m benchmarks.families $(FAMILIES_ARGS)

# On the machine with the GPU: with its own Python, and nothing installed there. GPU_ARGS="--only two-four"; --dry-run on a CPU.
gpu: ## On a machine with a GPU: its tests and the rows that docs/benchmarks.md lacks, in less than 8 minutes, without a registry
	$(PYTHON) -m benchmarks.gpu $(GPU_ARGS)

# On a machine with a registry: what the other one lacks, for its Python and x86-64.
GPU_PYTHON ?= 3.12
GPU_LACKS ?= pydantic pydantic-core annotated-types typing-inspection
gpu-pack: ## Put what a machine with a GPU lacks into build/gpu-site, to be carried there; GPU_LACKS="pydantic rich", GPU_PYTHON=3.12
	rm -rf build/gpu-site
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary=:all: \
		--python-version $(GPU_PYTHON) --implementation cp \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
		-c constraints.txt --target build/gpu-site $(GPU_LACKS)

bench-service: install servers ## Throughput, overhead, submits beside bare inserts, searches and scaling of the service, both profiles; BEFORE=CHECKOUT
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.submits $(if $(BEFORE),--before $(BEFORE))
	$(BIN)/python -m benchmarks.searches

bench-fleet: install ## Waiting times of tenants on 200 workers by the policy of claims, simulated with the product's own order
	$(BIN)/python -m benchmarks.fleet

bench-claims: install servers ## The time of a claim among 50,000 queued jobs of 1, 100 and 500 tenants, on both databases
	$(BIN)/python -m benchmarks.claims

# BASE is a commit; SAME_ARGS="--only fisher-cg" runs some of the cells.
BASE ?= HEAD
same: install ## Run a commit and this tree side by side, and compare every file that they write; BASE=1ac4d00 names the commit
	$(BIN)/python -m benchmarks.same $(BASE) $(SAME_ARGS)

bench-stages: install ## Seconds of each stage of a job, in a commit and in this tree; BASE=1ac4d00 STAGES_ARGS="--decoder FOLDER --text FOLDER"
	$(BIN)/python -m benchmarks.stages $(BASE) $(STAGES_ARGS)

settings-page: install ## Write docs/guides/settings.md from app/settings
	@$(BIN)/python -m app.settings_page > docs/guides/settings.md

architectures: install ## Try every method on every architecture, and write what works for GET /v1/architectures and docs/architectures.md
	@$(BIN)/python -m tests.matrix

clean: ## Remove what the targets made
	rm -rf $(VENV) dist .pytest_cache .ruff_cache demo-bundle $(SITE)

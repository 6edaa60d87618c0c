.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUT ?= runs/demo
PROOF_OUT ?= runs/proof
PROOF_MODEL ?= yolo11n-lite0-seg.yaml
PROOF_STEPS ?= 800
PROOF_ANOMALY := --set agents.anomaly_agent.splits.apart=true --set agents.anomaly_agent.plan_by=knowledge \
  --set agents.anomaly_agent.outline=half_height

.PHONY: help demo proof fetch install test test-slow check typecheck lint bench bench-models clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# A stamp an extra, so that a second call costs nothing and a change of pyproject.toml installs again. setuptools warns at
# length of folders named like the package; the root is the package here, so there is none to be mistaken for it.
.venv/.stamp-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --editable '.$(if $(filter core,$*),,[$*])'
	@touch $@

demo: .venv/.stamp-core  ## install and run the quickstart recipe on photographs that ship with scikit-image
	$(BIN)/maskwright models fetch --for quickstart
	$(BIN)/maskwright run quickstart --out $(DEMO_OUT)
	@echo "data set: $(DEMO_OUT)/dataset"
	@echo "report:   $(DEMO_OUT)/report.html"

proof: .venv/.stamp-yolo  ## DATA=PATH, an item of an anomaly data set: YOLO with and without, three seeds; resumable
	@test -n "$(DATA)" || { echo "say which data set: make proof DATA=PATH, a folder that has train/good" >&2; exit 2; }
	$(BIN)/maskwright models fetch minilm lite0
	$(BIN)/maskwright run anomaly --data '$(DATA)' --count 40 $(PROOF_ANOMALY) --out $(PROOF_OUT)/anomaly
	$(BIN)/maskwright run surface --data '$(DATA)' --set data.apart=true --out $(PROOF_OUT)/surface
	$(BIN)/maskwright evaluate yolo $(PROOF_OUT)/anomaly --also $(PROOF_OUT)/surface --data '$(DATA)' --split test \
	  --seeds 3 --model $(PROOF_MODEL) --steps $(PROOF_STEPS) --size 256 --batch 8 --set evaluation.hold_out=measured \
	  --set evaluation.precision=bfloat16 --set evaluation.mixing.backgrounds=0.5 \
	  --set evaluation.mixing.real_share=0.5 \
	  --set 'evaluation.hyperparameters={mosaic: 0, flipud: 0.5}'

fetch: .venv/.stamp-core  ## download the small models that recipes may name (194 MB) into the cache
	$(BIN)/maskwright models fetch smollm2 minilm lite0

install: .venv/.stamp-all  ## .venv with every extra, ultralytics (AGPL-3.0) included

test: .venv/.stamp-test  ## install and fetch what the tests need and run the fast suite
	$(BIN)/maskwright models fetch smollm2 minilm lite0
	$(BIN)/python -m pytest

test-slow: .venv/.stamp-all  ## the slow suite too: real language models, a real server, readers of ultralytics
	$(BIN)/maskwright models fetch smollm2 minilm lite0
	$(BIN)/python -m pytest -m "slow or not slow"

lint: .venv/.stamp-dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: .venv/.stamp-dev  ## mypy, strict
	@mkdir -p .typecheck && ln -sfn .. .typecheck/maskwright
	$(BIN)/mypy $$(git ls-files '*.py' | grep -vE '^(tests|benchmarks)/' | sed 's#^#.typecheck/maskwright/#')

check: lint typecheck test  ## ruff, mypy and the fast suite

bench: .venv/.stamp-all  ## speed and memory, as ratios against named alternatives
	$(BIN)/python benchmarks/load_convert.py
	$(BIN)/python benchmarks/compose.py
	$(BIN)/python benchmarks/items.py
	$(BIN)/maskwright models fetch lite0
	$(BIN)/python benchmarks/backbone.py

bench-models: .venv/.stamp-core  ## the embedded models and the T-Agent: speed, overhead, yield, diversity (an hour)
	$(BIN)/maskwright models fetch smollm2 minilm lite0
	$(BIN)/python benchmarks/smollm2.py
	$(BIN)/python benchmarks/graph_overhead.py
	$(BIN)/python benchmarks/rethink.py
	$(BIN)/python benchmarks/diversity.py

clean:  ## remove the environment and build leftovers; runs/ stays
	rm -rf .venv .typecheck build *.egg-info .pytest_cache .mypy_cache .ruff_cache

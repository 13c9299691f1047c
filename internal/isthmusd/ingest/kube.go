// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/apiserver"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// discoverEvery is how often the API server is asked for a kind that it does not
// serve. NOTE: one small request per absent kind, instead of a watch on all
// CustomResourceDefinitions, which would need a cluster-wide right and send us
// every CRD's schema.
const discoverEvery = 5 * time.Second

// Kube is a Source of an API server's objects. It keeps none of them: a watch
// event becomes rows and is let go.
type Kube struct {
	Converter Converter
	Log       *slog.Logger

	api    *apiserver.Client
	stores []*kubeStore
}

// NewKube returns the Source of an API server.
func NewKube(api *apiserver.Client, c Converter, log *slog.Logger) *Kube {
	return &Kube{Converter: c, Log: log, api: api}
}

// Attach implements Source: every kind is waited for.
func (k *Kube) Attach(q *Queue) {
	for _, kd := range kinds() {
		k.stores = append(k.stores, &kubeStore{
			kind: kd, converter: k.Converter, queue: q,
			synced: q.Expect("watch of " + kd.name), known: map[ID]struct{}{},
		})
	}
}

// Run watches every kind until ctx ends. A kind that the API server does not
// serve counts as synced and empty, and is watched as soon as it is served.
func (k *Kube) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range k.stores {
		wg.Go(func() { k.follow(ctx, s.kind, s) })
	}
	wg.Wait()
	return nil
}

func (k *Kube) follow(ctx context.Context, kd *kind, s *kubeStore) {
	for ctx.Err() == nil {
		if !kd.custom || k.served(ctx, kd) {
			k.watch(ctx, kd, s)
			continue
		}
		s.empty()
		select {
		case <-ctx.Done():
		case <-time.After(discoverEvery):
		}
	}
}

// served asks whether the API server serves the kind. When that cannot be
// learnt it is taken to be, for then the watch itself will fail and try again.
func (k *Kube) served(ctx context.Context, kd *kind) bool {
	yes, err := k.api.Serves(ctx, kd.group+"/"+kd.versions[0], kd.resource)
	return yes || err != nil
}

// watch lists and watches until ctx ends, or the kind is not served any more.
func (k *Kube) watch(ctx context.Context, kd *kind, s *kubeStore) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ns, sel := k.scope(kd)
	lw := cache.NewListWatchFromClient(k.api.Group(kd.group), kd.resource, ns, sel)
	r := cache.NewReflectorWithOptions(lw, kd.new(), s, cache.ReflectorOptions{Name: "isthmusd " + kd.name})
	for ctx.Err() == nil {
		err := r.ListAndWatchWithContext(ctx)
		if kd.custom && apierrors.IsNotFound(err) {
			return
		}
		pause := 100 * time.Millisecond // the watch ran out, as it does
		if err != nil {
			s.queue.Report("watch of "+kd.name, err.Error())
			pause = time.Second
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// scope limits what is watched. Secrets are read in the control plane's own
// namespace only, where the gateways are: isthmusd has no business with others.
func (k *Kube) scope(kd *kind) (string, fields.Selector) {
	own := k.Converter.Topology
	switch kd.name {
	case "Secret":
		return own.Namespace, fields.Everything()
	case "ConfigMap":
		return own.Namespace, fields.OneTermEqualSelector("metadata.name", topology.ConfigMapName(own.Name))
	case "Pod":
		return "", fields.ParseSelectorOrDie("status.phase!=Succeeded,status.phase!=Failed")
	}
	return "", fields.Everything()
}

// kubeStore is where a reflector puts one kind's objects: on into the queue.
type kubeStore struct {
	kind      *kind
	converter Converter
	queue     *Queue
	synced    func()
	known     map[ID]struct{}
	// understood is set once an object said something.
	understood bool
}

// Add delivers an object.
func (s *kubeStore) Add(obj any) error { return s.Update(obj) }

// Update delivers an object. One that cannot be understood keeps what it said
// last, and is reported.
func (s *kubeStore) Update(obj any) error {
	s.alive()
	batch := map[ID]Object{}
	s.take(obj, batch)
	s.queue.Set(batch)
	s.settle()
	return nil
}

func (s *kubeStore) take(obj any, batch map[ID]Object) {
	o, ok := obj.(object)
	if !ok {
		return
	}
	id := s.kind.idOf(o)
	s.known[id] = struct{}{}
	rows, err := s.converter.convert(s.kind, o)
	if err != nil {
		s.queue.Report(id.String(), err.Error())
		return
	}
	s.understood = s.understood || len(rows) > 0
	s.queue.Report(id.String(), "")
	batch[id] = Object{Created: o.GetCreationTimestamp().Time, Rows: rows}
}

// Delete delivers that an object is gone.
func (s *kubeStore) Delete(obj any) error {
	s.alive()
	o, ok := obj.(object)
	if !ok {
		return nil
	}
	id := s.kind.idOf(o)
	delete(s.known, id)
	s.queue.Report(id.String(), "")
	s.queue.Set(map[ID]Object{id: {}})
	return nil
}

// Replace delivers a whole list: all of it, and that what is not in it is gone.
func (s *kubeStore) Replace(list []any, _ string) error {
	s.alive()
	gone := s.known
	s.known = make(map[ID]struct{}, len(list))
	batch := make(map[ID]Object, len(list))
	for _, obj := range list {
		s.take(obj, batch)
	}
	for id := range gone {
		if _, ok := s.known[id]; !ok {
			batch[id] = Object{}
			s.queue.Report(id.String(), "")
		}
	}
	s.queue.Set(batch)
	s.queue.Report("watch of "+s.kind.name, "")
	s.settle()
	return nil
}

// UpdateResourceVersion is called for every event of the watch, bookmarks too.
func (s *kubeStore) UpdateResourceVersion(string) { s.alive() }

func (s *kubeStore) alive() { s.queue.Alive("watch of " + s.kind.name) }

// settle counts the kind as synced. That of the topology's own ConfigMap waits
// for one that can be read: without its policy nothing may be served.
func (s *kubeStore) settle() {
	if s.kind.name == "ConfigMap" {
		what := "configuration " + topology.ConfigMapName(s.converter.Topology.Name)
		if !s.understood {
			s.queue.Report(what, "there is no usable ConfigMap yet")
			return
		}
		s.queue.Report(what, "")
	}
	s.synced()
}

// empty forgets all objects of a kind that is not served.
func (s *kubeStore) empty() {
	_ = s.Replace(nil, "") // never fails
}

// Resync has nothing to do: nothing is kept here.
func (s *kubeStore) Resync() error { return nil }

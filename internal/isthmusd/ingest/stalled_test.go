// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/apiserver"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// bookmarking answers a list of Nodes with none, and a watch with a bookmark
// whenever it is told to.
func bookmarking(t *testing.T) (k *Kube, bookmark chan struct{}) {
	t.Helper()
	bookmark = make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/nodes", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("sendInitialEvents") != "" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		if r.URL.Query().Get("watch") == "" {
			_, _ = fmt.Fprint(w, `{"apiVersion":"v1","kind":"NodeList","metadata":{"resourceVersion":"1"},"items":[]}`)
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for n := 2; ; n++ {
			select {
			case <-bookmark:
				_, _ = fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"Node","metadata":{"resourceVersion":"%d"}}}`+"\n", n)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	api, err := apiserver.New(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return NewKube(api, Converter{Topology: topology.Config{}}, nil), bookmark
}

// hears is a store that tells when it was told something.
type hears struct {
	*kubeStore
	heard chan struct{}
}

func (h hears) Replace(list []any, version string) error {
	err := h.kubeStore.Replace(list, version)
	h.heard <- struct{}{}
	return err
}

func (h hears) UpdateResourceVersion(version string) {
	h.kubeStore.UpdateResourceVersion(version)
	h.heard <- struct{}{}
}

// TestASilentWatchIsStalled lets the queue's clock pass while a real watch gets
// bookmarks, and then none.
func TestASilentWatchIsStalled(t *testing.T) {
	t.Parallel()
	kube, bookmark := bookmarking(t)
	q := newQueue(nil)
	now := time.Unix(0, 0)
	pass := func(d time.Duration) {
		q.mu.Lock()
		defer q.mu.Unlock()
		now = now.Add(d)
	}
	q.now = func() time.Time { return now }
	kinds := kinds()
	node := kinds[slices.IndexFunc(kinds, func(k *kind) bool { return k.name == "Node" })]
	h := hears{&kubeStore{kind: node, queue: q, synced: func() {}, known: map[ID]struct{}{}}, make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		lw := cache.NewListWatchFromClient(kube.api.Group(node.group), node.resource, "", fields.Everything())
		_ = cache.NewReflectorWithOptions(lw, node.new(), h, cache.ReflectorOptions{}).ListAndWatchWithContext(ctx)
	}()
	hear := func(what string) {
		t.Helper()
		select {
		case <-h.heard:
		case <-time.After(time.Minute):
			t.Fatalf("no %s within a minute", what)
		}
	}
	hear("list")
	for range 3 {
		pass(stalledAfter)
		if got := q.Stalled(); len(got) != 0 {
			t.Errorf("stalled: %v", got)
		}
		bookmark <- struct{}{}
		hear("bookmark")
	}
	pass(stalledAfter + time.Second)
	if got := q.Stalled(); !slices.Equal(got, []string{"watch of Node"}) {
		t.Errorf("stalled: %v", got)
	}
	cancel()
	<-done
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/apiserver"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// customServer serves the custom kinds, of which there are no objects, and tells
// of each list before it answers.
func customServer(t *testing.T, listing func(*kind)) *Kube {
	t.Helper()
	mux := http.NewServeMux()
	serving := map[string][]metav1.APIResource{}
	for _, kd := range kinds() {
		if !kd.custom {
			continue
		}
		base := "/apis/" + kd.group + "/" + kd.versions[0]
		serving[base] = append(serving[base], metav1.APIResource{Name: kd.resource})
		mux.HandleFunc(base+"/"+kd.resource, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Query().Get("sendInitialEvents") != "":
				w.WriteHeader(http.StatusUnprocessableEntity)
			case r.URL.Query().Get("watch") != "":
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			default:
				listing(kd)
				w.Header().Set("Content-Type", "application/json")
				_, _ = fmt.Fprintf(w, `{"apiVersion":"%s/%s","kind":"%sList","metadata":{"resourceVersion":"1"},"items":[]}`, kd.group, kd.versions[0], kd.name)
			}
		})
	}
	for base, rs := range serving {
		mux.HandleFunc(base, func(w http.ResponseWriter, _ *http.Request) {
			answer := `{"apiVersion":"v1","kind":"APIResourceList","resources":[`
			for i, r := range rs {
				if i > 0 {
					answer += ","
				}
				answer += fmt.Sprintf(`{"name":%q}`, r.Name)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprint(w, answer+"]}")
		})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	api, err := apiserver.New(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return NewKube(api, Converter{Topology: topology.Config{}}, nil)
}

// TestCustomKindsComeOneAfterTheOther: no list of one begins before all of the
// one before has been delivered.
func TestCustomKindsComeOneAfterTheOther(t *testing.T) {
	t.Parallel()
	q := newQueue(nil)
	var mu sync.Mutex
	begun := []string{}
	kube := customServer(t, func(kd *kind) {
		mu.Lock()
		defer mu.Unlock()
		for _, before := range begun {
			if slices.Contains(q.Waiting(), "watch of "+before) {
				t.Errorf("%s is read, though %s is under way", kd.name, before)
			}
		}
		begun = append(begun, kd.name)
	})
	kube.Attach(q)
	kube.stores = slices.DeleteFunc(kube.stores, func(s *kubeStore) bool {
		if !s.kind.custom {
			s.synced()
		}
		return !s.kind.custom
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = kube.Run(ctx) // ends with ctx
	}()
	for late := time.After(time.Minute); len(q.Waiting()) > 0; {
		select {
		case <-q.wake:
		case <-late:
			t.Fatalf("after a minute there are still missing: %v", q.Waiting())
		}
	}
	cancel()
	<-done
}

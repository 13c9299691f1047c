// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

const (
	benchStreams  = 1000
	benchServices = 1000
)

// sink is a client that acknowledges nothing by itself and notes the last nonce.
type sink struct{ bytes int }

func (s *sink) SendMsg(m any) error {
	b, err := newCodec().Marshal(m)
	s.bytes += b.Len()
	return err
}

func benchState() []*resource.Resource {
	var rs []*resource.Resource
	body := []byte(strings.Repeat("b", 700))
	for i := range benchServices {
		name := fmt.Sprintf("outbound|80||service-%04d.shop.svc.cluster.local", i)
		rs = append(rs,
			&resource.Resource{Type: resource.Cluster, Name: name, Upstream: resource.Upstream{ServiceName: name}, Version: 1, Body: body},
			&resource.Resource{Type: resource.Endpoint, Name: name, Version: 1, Body: body})
	}
	return rs
}

// BenchmarkOneEndpoint changes the endpoints of one of a thousand services and
// brings them to a thousand streams of one class, acknowledgements included.
func BenchmarkOneEndpoint(b *testing.B) {
	rs := benchState()
	src := &fixed{state: state(1, rs...)}
	server := New(Options{Source: src})
	names := make([]string, 0, benchServices)
	for _, r := range src.state.Sets[resource.Endpoint].List() {
		names = append(names, r.Name)
	}
	now := time.Unix(0, 0)
	streams := make([]*stream, benchStreams)
	settle := func(s *stream) {
		if err := s.pump(now); err != nil {
			b.Fatal(err)
		}
		for t := range s.watches {
			for _, f := range s.watches[t].flights {
				s.take(request{url: resource.Type(t).URL(), nonce: f.nonce})
			}
		}
		if err := s.pump(now); err != nil {
			b.Fatal(err)
		}
	}
	before := heap()
	for i := range streams {
		s := opened(b, server, Delta, &sink{})
		s.take(request{url: resource.Cluster.URL()})
		settle(s)
		s.take(request{url: resource.Endpoint.URL(), subscribe: names})
		s.take(request{url: resource.Listener.URL()})
		settle(s)
		streams[i] = s
	}
	perStream := float64(heap()-before) / benchStreams
	revision := uint64(1)
	for b.Loop() {
		revision++
		b.StopTimer()
		next := *src.state
		next.Revision = revision
		list := append([]*resource.Resource(nil), next.Sets[resource.Endpoint].List()...)
		changed := *list[int(revision)%len(list)]
		changed.Version = revision
		list[int(revision)%len(list)] = &changed
		next.Sets[resource.Endpoint] = resource.NewSet(list)
		src.state = &next
		b.StartTimer()
		for _, s := range streams {
			if err := s.refresh(); err != nil {
				b.Fatal(err)
			}
			settle(s)
			if s.watches[resource.Endpoint].acked.Revision != revision {
				b.Fatal("not acknowledged")
			}
		}
	}
	b.ReportMetric(perStream, "heap-B/stream")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchStreams, "ns/stream")
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkFirstConfiguration brings everything to a new stream of a known class.
func BenchmarkFirstConfiguration(b *testing.B) {
	src := &fixed{state: state(1, benchState()...)}
	server := New(Options{Source: src})
	var names []string
	for _, r := range src.state.Sets[resource.Endpoint].List() {
		names = append(names, r.Name)
	}
	now := time.Unix(0, 0)
	for b.Loop() {
		s := opened(b, server, Delta, &sink{})
		s.take(request{url: resource.Cluster.URL()})
		s.take(request{url: resource.Endpoint.URL(), subscribe: names})
		if err := s.pump(now); err != nil {
			b.Fatal(err)
		}
	}
}

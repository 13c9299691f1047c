// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// decoders are ours and the one that it leaves to what it does not understand.
func decoders(t testing.TB) (ours customDecoder, theirs runtime.Decoder) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := networking.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	info, _ := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	gv := schema.GroupVersion{Group: "networking.istio.io", Version: "v1"}
	theirs = codecs.DecoderToVersion(info.Serializer, gv)
	return customCodecs{codecs, scheme}.DecoderToVersion(info.Serializer, gv).(customDecoder), theirs
}

func document(kind, spec string) string {
	return `{"apiVersion":"networking.istio.io/v1","kind":"` + kind + `","metadata":{"name":"a","namespace":"b","labels":{"c":"d"},` +
		`"creationTimestamp":"2026-01-01T00:00:00Z","resourceVersion":"7"},"spec":` + spec + `}`
}

// same fails unless ours reads what theirs does, and in the same way. That it takes
// 1e1 for 10 is right.
func same(t *testing.T, doc string) {
	t.Helper()
	ours, theirs := decoders(t)
	got, _, gotErr := ours.Decode([]byte(doc), nil, nil)
	want, _, wantErr := theirs.Decode([]byte(doc), nil, nil)
	if wantErr != nil {
		return
	}
	if gotErr != nil {
		t.Fatalf("%s: %v", doc, gotErr)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", doc, diff)
	}
}

// TestCustomObjectsAreReadAsBefore: what ours does not understand, theirs gets.
func TestCustomObjectsAreReadAsBefore(t *testing.T) {
	t.Parallel()
	ours, _ := decoders(t)
	for name, tt := range map[string]struct {
		doc string
		// left is true for what is not read by ours.
		left bool
	}{
		"a ServiceEntry": {document("ServiceEntry", `{"hosts":["a.b"],"resolution":"STATIC","ports":[{"number":80,"name":"http"}],
			"endpoints":[{"address":"10.0.0.1","labels":{"a":"b"}}]}`), false},
		"a VirtualService with seconds": {document("VirtualService", `{"hosts":["a"],"http":[{"timeout":"1.5s","route":[{"destination":{"host":"b"}}]}]}`), false},
		"a VirtualService with minutes": {document("VirtualService", `{"hosts":["a"],"http":[{"timeout":"1m","route":[{"destination":{"host":"b"}}]}]}`), true},
		"names as protobuf has them":    {document("ServiceEntry", `{"hosts":["a.b"],"export_to":["*"]}`), false},
		"a field of a later version":    {document("ServiceEntry", `{"hosts":["a.b"],"later":1}`), true},
		"a value of a later version":    {document("ServiceEntry", `{"hosts":["a.b"],"resolution":"LATER"}`), true},
		"an empty spec":                 {document("Sidecar", `{}`), false},
		"null":                          {document("Sidecar", `null`), true},
		"a kind that there is not":      {document("Nothing", `{}`), true},
		"no JSON":                       {`{"apiVersion":`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			same(t, tt.doc)
			if o, _ := ours.fast([]byte(tt.doc)); (o == nil) != tt.left {
				t.Errorf("left to the other decoder: %t, want %t", o == nil, tt.left)
			}
		})
	}
}

func FuzzCustomObjects(f *testing.F) {
	f.Add("VirtualService", `{"hosts":["a"],"http":[{"timeout":"1m","match":[{"uri":{"prefix":"/"}}]}]}`)
	f.Add("ServiceEntry", `{"hosts":["a.b"],"ports":[{"number":"80"}],"location":1}`)
	f.Add("DestinationRule", `{"host":"a","trafficPolicy":{"connectionPool":{"tcp":{"maxConnections":1e1}}}}`)
	f.Fuzz(func(t *testing.T, kind, spec string) {
		if strings.ContainsAny(kind, "\"\\") {
			return
		}
		same(t, document(kind, spec))
	})
}

// BenchmarkCustomObject reads a ServiceEntry of ten endpoints, with ours and theirs.
func BenchmarkCustomObject(b *testing.B) {
	var es []string
	for i := range 10 {
		es = append(es, fmt.Sprintf(`{"address":"10.0.0.%d","labels":{"app":"a","version":"v1"},"locality":"r1/z0","serviceAccount":"a"}`, i))
	}
	doc := []byte(document("ServiceEntry", `{"hosts":["a.ns.mesh.test"],"addresses":["172.16.0.1"],"location":"MESH_INTERNAL","resolution":"STATIC",
		"ports":[{"number":8080,"name":"http","protocol":"HTTP"}],"endpoints":[`+strings.Join(es, ",")+`]}`))
	ours, theirs := decoders(b)
	for name, d := range map[string]runtime.Decoder{"ours": ours, "theirs": theirs} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := d.Decode(doc, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

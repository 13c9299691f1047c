// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/json"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	unjson "k8s.io/apimachinery/pkg/util/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// customCodecs read Istio's kinds faster than their own types do.
type customCodecs struct {
	runtime.NegotiatedSerializer
	scheme *runtime.Scheme
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (c customCodecs) DecoderToVersion(d runtime.Decoder, gv runtime.GroupVersioner) runtime.Decoder {
	return customDecoder{c.NegotiatedSerializer.DecoderToVersion(d, gv), c.scheme}
}

// customDecoder reads one object of Istio's kinds, as a watch brings it, with
// protobuf's own reader of JSON. NOTE: the types' UnmarshalJSON does it with an old
// one that splits each message into pieces and checks the pieces anew at each
// level; most of a start went into that. The old one takes more, for instance "1m"
// for a minute, and fields that it does not know: what the new one refuses is left
// to it. Of the status nothing is read.
type customDecoder struct {
	runtime.Decoder
	scheme *runtime.Scheme
}

// Decode implements runtime.Decoder.
func (d customDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if into == nil {
		if o, gvk := d.fast(data); o != nil {
			return o, gvk, nil
		}
	}
	return d.Decoder.Decode(data, defaults, into)
}

// envelope is an object whose spec is not read yet.
type envelope struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            json.RawMessage   `json:"spec"`
}

// fast returns nil for what it does not understand.
func (d customDecoder) fast(data []byte) (runtime.Object, *schema.GroupVersionKind) {
	var e envelope
	if err := unjson.Unmarshal(data, &e); err != nil || len(e.Spec) == 0 {
		return nil, nil
	}
	gvk := e.GroupVersionKind()
	o, err := d.scheme.New(gvk)
	if err != nil {
		return nil, nil
	}
	meta, ok := o.(metav1.ObjectMetaAccessor)
	if !ok {
		return nil, nil
	}
	field := reflect.ValueOf(o).Elem().FieldByName("Spec")
	if !field.IsValid() {
		return nil, nil
	}
	spec, ok := field.Addr().Interface().(proto.Message)
	if !ok || protojson.Unmarshal(e.Spec, spec) != nil {
		return nil, nil
	}
	into, ok := meta.GetObjectMeta().(*metav1.ObjectMeta)
	if !ok {
		return nil, nil
	}
	*into = e.Metadata
	return o, &gvk
}

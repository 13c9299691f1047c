// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"bufio"
)

// parsed is what one file says.
type parsed struct {
	objects map[ID]Object
	// ignored counts documents of kinds that isthmusd has no use for.
	ignored int
}

// parseFile reads a file of YAML or JSON documents. One broken document breaks
// the file: half of what somebody wrote is not what they meant.
func parseFile(ks []*kind, c Converter, content []byte) (parsed, error) {
	out := parsed{objects: map[ID]Object{}}
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for n := 1; ; n++ {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err == nil {
			err = out.add(ks, c, doc)
		}
		if err != nil {
			return parsed{}, fmt.Errorf("document %d: %w", n, err)
		}
	}
}

// header is what says of which kind a document is.
type header struct {
	metav1.TypeMeta `json:",inline"`
	Items           []json.RawMessage `json:"items"`
}

func (p *parsed) add(ks []*kind, c Converter, doc []byte) error {
	raw, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return err
	}
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return fmt.Errorf("not a Kubernetes object: %w", err)
	}
	if h.Kind == "" || h.APIVersion == "" {
		return errors.New("apiVersion and kind are required")
	}
	if h.Kind == "List" && h.APIVersion == "v1" {
		for i, item := range h.Items {
			if err := p.add(ks, c, item); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
		}
		return nil
	}
	gv, err := schema.ParseGroupVersion(h.APIVersion)
	if err != nil {
		return err
	}
	k := findKind(ks, gv.Group, gv.Version, h.Kind)
	if k == nil {
		p.ignored++
		return nil
	}
	return p.addObject(k, c, raw)
}

func (p *parsed) addObject(k *kind, c Converter, raw []byte) error {
	o := k.new()
	if err := json.Unmarshal(raw, o); err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	if o.GetName() == "" {
		return fmt.Errorf("%s without a name", k.name)
	}
	if !k.cluster && o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	id := k.idOf(o)
	if _, twice := p.objects[id]; twice {
		return fmt.Errorf("%s is there twice", id)
	}
	rows, err := c.convert(k, o)
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	p.objects[id] = Object{Created: o.GetCreationTimestamp().Time, Rows: rows}
	return nil
}

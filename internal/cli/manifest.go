// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// errNoFiles is what a verb says that has nothing to read.
var errNoFiles = errors.New("--filename: name the manifests, or - for the input")

// manifests reads the files, - being the input, and splits them into objects.
func manifests(t Tool, files []string) ([]*unstructured.Unstructured, error) {
	stream, err := readInput(t, files)
	if err != nil {
		return nil, err
	}
	return objects(stream)
}

// readInput returns what the files hold, one after the other; "-" is the input.
func readInput(t Tool, files []string) ([]byte, error) {
	var all bytes.Buffer
	for _, f := range files {
		read := func() ([]byte, error) { return t.ReadFile(f) }
		if f == "-" {
			read = func() ([]byte, error) { return io.ReadAll(t.Streams.In) }
		}
		b, err := read()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		if all.Len() > 0 {
			all.WriteString("\n---\n")
		}
		all.Write(b)
	}
	return all.Bytes(), nil
}

// objects splits a stream of YAML or JSON documents. Lists are taken apart.
func objects(stream []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	r := kyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(stream)))
	for n := 1; ; n++ {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(u.Object) == 0 {
			continue
		}
		if !u.IsList() {
			out = append(out, u)
			continue
		}
		err = u.EachListItem(func(o runtime.Object) error {
			item, ok := o.(*unstructured.Unstructured)
			if ok {
				out = append(out, item)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
	}
}

// writeObjects prints documents, separated as YAML wants.
func writeObjects(w io.Writer, list []*unstructured.Unstructured) error {
	for i, u := range list {
		b, err := yaml.Marshal(u.Object)
		if err != nil {
			return fmt.Errorf("write %s: %w", describe(u), err)
		}
		if i > 0 {
			b = append([]byte("---\n"), b...)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// describe names an object in messages.
func describe(u *unstructured.Unstructured) string {
	name := u.GetName()
	if name == "" {
		name = u.GetGenerateName()
	}
	if ns := u.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return u.GetKind() + " " + name
}

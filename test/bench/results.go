// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/test/bench/measure"
	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// result is what one scenario gave.
type result struct {
	Shape    *mesh.Shape       `json:"shape,omitempty"`
	Proxies  int               `json:"proxies,omitempty"`
	Protocol swarm.Protocol    `json:"protocol,omitempty"`
	Steps    []*measure.Step   `json:"steps,omitempty"`
	Loads    []*measure.Load   `json:"loads,omitempty"`
	AtRest   []*measure.AtRest `json:"at_rest,omitempty"`
	// Recovery of slow proxies.
	Recovery *measure.Recovery `json:"recovery,omitempty"`
}

// step finds a step by its name, or nil.
func (r *result) step(name string) *measure.Step {
	if r == nil {
		return nil
	}
	for _, s := range r.Steps {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// results are those of all scenarios, by name.
type results map[string]*result

const resultsFile = "results.json"

func readResults(dir string) (results, error) {
	b, err := os.ReadFile(filepath.Join(dir, resultsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return results{}, nil
	}
	if err != nil {
		return nil, err
	}
	out := results{}
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read %s: %w", resultsFile, err)
	}
	return out, nil
}

func (r results) write(dir string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, resultsFile), append(b, '\n'), 0o644)
}

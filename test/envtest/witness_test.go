// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// witness sees each write of the operator for some meshes, in its order, and what
// it does that no state allows which it wrote down before. It can cut the operator
// off from a mesh right after it wrote down a phase, and before all that follows
// from it.
type witness struct {
	mu       sync.Mutex
	journeys map[string]*journey // by the mesh's name
	wrong    []string
}

// journey is what was seen of one mesh.
type journey struct {
	// state that was written last; nil when it was never, or was lost.
	state *transition.State
	epoch string
	// phases in the order of writing.
	phases []string
	// way are the phases that are to come, in their order.
	way []string
	// cutIn is the one of them in which the operator is cut off, if it is armed.
	cutIn int
	armed bool
	cut   bool
	walls map[string]bool
	// writing is open while a state is written and the answer is not there yet.
	writing chan struct{}
}

func newWitness() *witness { return &witness{journeys: map[string]*journey{}} }

// follow begins to watch a mesh. Names must not be parts of each other.
func (w *witness) follow(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.journeys[name] = &journey{walls: map[string]bool{}}
}

func (w *witness) unfollow(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := w.journeys[name]; j != nil && j.writing != nil {
		close(j.writing)
	}
	delete(w.journeys, name)
}

// sets begins a way of a mesh: the operator is cut off in its first phase.
func (w *witness) sets(name string, way []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.journeys[name]
	j.phases, j.way, j.cutIn, j.armed = nil, way, 0, true
}

// cutOff is an error while the operator is not cut off from all meshes.
func (w *witness) cutOff() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, j := range w.journeys {
		if !j.cut {
			return fmt.Errorf("%s went through %q only", name, j.phases)
		}
	}
	return nil
}

// resume lets the operator reach the meshes again until the next phase of each.
func (w *witness) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.journeys {
		j.cut = false
		j.cutIn++
		j.armed = j.cutIn < len(j.way)
	}
}

// lose forgets the states, which are lost.
func (w *witness) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.journeys {
		j.state = nil
	}
}

func (w *witness) seen(name string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.journeys[name].phases...)
}

func (w *witness) violations() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.wrong...)
}

// of is the journey that the request is about, or nil.
func (w *witness) of(req *http.Request) (string, *journey) {
	for name, j := range w.journeys {
		if strings.Contains(req.URL.Path, name) {
			return name, j
		}
	}
	return "", nil
}

// before holds up what the operator can no longer do until it is dead, and what
// follows from a state until the answer to its writing is seen: watches tell of it
// sooner.
func (w *witness) before(dead <-chan struct{}, req *http.Request) error {
	for req.Method != http.MethodGet {
		w.mu.Lock()
		name, j := w.of(req)
		if j == nil {
			w.mu.Unlock()
			return nil
		}
		writing, cut := j.writing, j.cut
		if writing == nil && !cut && isState(name, req) {
			j.writing = make(chan struct{})
		}
		w.mu.Unlock()
		switch {
		case cut:
			<-dead
			return errors.New("the operator is dead")
		case writing == nil:
			return nil
		}
		select {
		case <-writing:
		case <-req.Context().Done():
			return req.Context().Err()
		}
	}
	return nil
}

// isState tells whether the request writes down how far a mesh is.
func isState(mesh string, req *http.Request) bool {
	return strings.HasSuffix(req.URL.Path, "/configmaps/"+topology.ConfigMapName(mesh)) && req.Method != http.MethodDelete
}

// answered lets go what waited for the answer to a state's writing.
func (w *witness) answered(req *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name, j := w.of(req); j != nil && j.writing != nil && isState(name, req) {
		close(j.writing)
		j.writing = nil
	}
}

// after judges a write that was done.
func (w *witness) after(p *proxies, req *http.Request, res *http.Response) {
	if req.Method == http.MethodGet || res.StatusCode >= http.StatusMultipleChoices {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name, j := w.of(req)
	if j == nil {
		return
	}
	complain := func(format string, args ...any) {
		w.wrong = append(w.wrong, fmt.Sprintf("%s, in %+v: %s %s: ", name, j.state, req.Method, req.URL.Path)+fmt.Sprintf(format, args...))
	}
	switch {
	case isState(name, req):
		j.written(req, complain)
	case strings.Contains(req.URL.Path, "/networkpolicies/"):
		j.wall(req, complain)
	case strings.HasSuffix(req.URL.Path, "/deployments/egress-"+name) && req.Method == http.MethodDelete:
		if j.state == nil || j.state.Gateway() {
			complain("the gateway goes")
		}
		if !p.follow(j.epoch) {
			complain("the gateway goes before all proxies follow other routes")
		}
	}
}

// written takes note of a state: it and the routes are one, and walls stand only
// where routes lead through the gateway.
func (j *journey) written(req *http.Request, complain func(string, ...any)) {
	state, config, err := content(req)
	if err != nil {
		complain("%v", err)
		return
	}
	if state.Epoch != config.Epoch || config.Topology != topology.Kind(state.Routes()) {
		complain("epoch %s with routes of %s, but epoch %s with routes of %s", state.Epoch, state.Routes(), config.Epoch, config.Topology)
	}
	if config.Topology != topology.EgressGateway && len(j.walls) > 0 {
		complain("routes lead past the gateway while walls stand: %v", j.walls)
	}
	if len(j.phases) == 0 || j.phases[len(j.phases)-1] != state.Phase {
		j.phases = append(j.phases, state.Phase)
	}
	j.state, j.epoch = &state, config.Epoch
	// A way that was lost may end at once.
	j.cut = j.armed && (state.Phase == j.way[j.cutIn] || state.Settled())
}

func (j *journey) wall(req *http.Request, complain func(string, ...any)) {
	if req.Method == http.MethodDelete {
		delete(j.walls, req.URL.Path)
		if j.state == nil || j.state.Walls() {
			complain("the wall is opened")
		}
		return
	}
	stood := j.walls[req.URL.Path]
	j.walls[req.URL.Path] = true
	// What stands may be laid again by who has not seen the latest state yet.
	if !stood && (j.state == nil || !j.state.Walls()) {
		complain("the wall is raised early")
	}
}

// content reads state and configuration out of an apply of the mesh's ConfigMap.
func content(req *http.Request) (transition.State, topology.Config, error) {
	body, err := req.GetBody()
	if err != nil {
		return transition.State{}, topology.Config{}, err
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return transition.State{}, topology.Config{}, err
	}
	var cm struct{ Data map[string]string }
	if err := json.Unmarshal(text, &cm); err != nil {
		return transition.State{}, topology.Config{}, err
	}
	state, err := transition.Parse(cm.Data[topology.StateKey])
	if err != nil {
		return transition.State{}, topology.Config{}, err
	}
	config, err := topology.Parse(cm.Data[topology.ConfigKey])
	return state, config, err
}

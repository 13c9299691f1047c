// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// custom are the kinds that the server says it has of Istio's groups.
var custom = map[string]string{
	"networking.istio.io": "serviceentries virtualservices destinationrules gateways sidecars envoyfilters workloadentries workloadgroups proxyconfigs",
	"security.istio.io":   "peerauthentications authorizationpolicies requestauthentications",
	"telemetry.istio.io":  "telemetries",
}

// bookmarkEvery is how often a watch hears that there is nothing new.
const bookmarkEvery = 15 * time.Second

// fields is a JSON object.
type fields = map[string]any

// ServeHTTP answers as an API server would.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	group := ""
	switch {
	case r.URL.Path == "/version":
		answer(w, http.StatusOK, fields{"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
		return
	case path[0] == "api" && len(path) > 2:
		path = path[2:]
	case path[0] == "apis" && len(path) > 3:
		group, path = path[1], path[3:]
	case path[0] == "apis" && len(path) == 3:
		discover(w, path[1], path[2])
		return
	default:
		refuse(w, http.StatusNotFound, "NotFound", r.URL.Path)
		return
	}
	q := selection{}
	if path[0] == "namespaces" && len(path) > 2 {
		q.namespace, path = path[1], path[2:]
	}
	q.resource = group + "/" + path[0]
	if len(path) > 1 {
		q.name = path[1]
	}
	switch {
	case r.Method == http.MethodGet && q.name != "":
		s.get(w, q)
	case r.Method == http.MethodGet:
		q.name = named(r.URL.Query().Get("fieldSelector"))
		if r.URL.Query().Get("watch") != "" {
			s.watch(w, r, q)
			return
		}
		s.answerList(w, q)
	case r.Method == http.MethodPost && path[0] == "tokenreviews":
		review(w, r)
	case r.Method == http.MethodPut:
		s.take(w, r, q)
	default:
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
	}
}

// named is the name that a field selector asks for, or "".
func named(selector string) string {
	for _, part := range strings.Split(selector, ",") {
		if name, ok := strings.CutPrefix(part, "metadata.name="); ok {
			return name
		}
	}
	return ""
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}

func refuse(w http.ResponseWriter, code int, reason, message string) {
	answer(w, code, fields{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})
}

func discover(w http.ResponseWriter, group, version string) {
	if custom[group] == "" {
		refuse(w, http.StatusNotFound, "NotFound", group)
		return
	}
	var all []any
	for _, name := range strings.Fields(custom[group]) {
		all = append(all, fields{"name": name, "namespaced": true, "verbs": []any{"list", "watch"}})
	}
	answer(w, http.StatusOK, fields{
		"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group + "/" + version, "resources": all,
	})
}

func (s *Server) get(w http.ResponseWriter, q selection) {
	items, _ := s.list(q)
	if len(items) == 0 {
		refuse(w, http.StatusNotFound, "NotFound", q.name)
		return
	}
	answer(w, http.StatusOK, json.RawMessage(items[0].raw))
}

func (s *Server) answerList(w http.ResponseWriter, q selection) {
	items, revision := s.list(q)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"metadata":{"resourceVersion":"%d"},"items":[`, revision)
	for i, it := range items {
		if i > 0 {
			_, _ = w.Write([]byte{','}) // the client has gone
		}
		_, _ = w.Write(it.raw)
	}
	fmt.Fprint(w, "]}")
}

func (s *Server) take(w http.ResponseWriter, r *http.Request, q selection) {
	var o mesh.Object
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	if err := s.put(q.resource, o); err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	answer(w, http.StatusOK, o)
}

// review believes a token that says who it is: "namespace/account".
func review(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	o := &authentication.TokenReview{}
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, o); err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	namespace, account, ok := strings.Cut(o.Spec.Token, "/")
	answer(w, http.StatusCreated, fields{
		"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
		"status": fields{
			"authenticated": ok, "audiences": o.Spec.Audiences,
			"user": fields{"username": "system:serviceaccount:" + namespace + ":" + account},
		},
	})
}

// watch tells what happens until the client goes. It begins with all that there
// is if the client asks for that.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, q selection) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := w.(http.Flusher).Flush
	query := r.URL.Query()
	revision, _ := strconv.ParseInt(query.Get("resourceVersion"), 10, 64) // none is 0: everything
	if query.Get("sendInitialEvents") == "true" {
		var items []*item
		items, revision = s.list(q)
		for _, it := range items {
			fmt.Fprintf(w, `{"type":"ADDED","object":%s}`+"\n", it.raw)
		}
		bookmark(w, q, revision, `,"annotations":{"k8s.io/initial-events-end":"true"}`)
	}
	flush()
	rest := time.NewTicker(bookmarkEvery)
	defer rest.Stop()
	for {
		events, now, more := s.since(q, revision)
		for _, e := range events {
			fmt.Fprintf(w, `{"type":"%s","object":%s}`+"\n", e.kind, e.item.raw)
		}
		if revision = now; len(events) > 0 {
			flush()
		}
		select {
		case <-r.Context().Done():
			return
		case <-more:
		case <-rest.C:
			bookmark(w, q, revision, "")
			flush()
		}
	}
}

// bookmark says which revision the watch has come to.
func bookmark(w http.ResponseWriter, q selection, revision int64, more string) {
	group, plural, _ := strings.Cut(q.resource, "/")
	version := "v1"
	if group != "" {
		version = group + "/v1"
	}
	fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d"%s}}}`+"\n",
		kinds[plural], version, revision, more)
}

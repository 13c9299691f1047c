// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package apiserver reaches a Kubernetes API server for the few kinds that
// isthmusd reads.
//
// NOTE: it has a scheme of its own instead of client-go's clientsets. Those link
// the types, clients and apply configurations of every API group there is, which
// is a third of the program, mapped by each replica and set up at each start.
package apiserver

import (
	"context"
	"fmt"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// Client of an API server. Safe for concurrent use.
type Client struct {
	scheme *runtime.Scheme
	groups map[string]rest.Interface
}

// group that is read, and how its types are known.
type group struct {
	schema.GroupVersion
	register func(*runtime.Scheme) error
	// custom kinds come as JSON: they have no binary form.
	custom bool
}

func groups() []group {
	return []group{
		{GroupVersion: corev1.SchemeGroupVersion, register: corev1.AddToScheme},
		{GroupVersion: discoveryv1.SchemeGroupVersion, register: discoveryv1.AddToScheme},
		{GroupVersion: authenticationv1.SchemeGroupVersion, register: authenticationv1.AddToScheme},
		{GroupVersion: networking.SchemeGroupVersion, register: networking.AddToScheme, custom: true},
		{GroupVersion: security.SchemeGroupVersion, register: security.AddToScheme, custom: true},
	}
}

// New returns a Client. Its groups share connections and the rate of requests.
func New(config *rest.Config) (*Client, error) {
	shared := rest.CopyConfig(config)
	if shared.RateLimiter == nil && shared.QPS > 0 {
		shared.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(shared.QPS, shared.Burst)
	}
	transport, err := rest.HTTPClientFor(shared)
	if err != nil {
		return nil, fmt.Errorf("make HTTP client of the API server: %w", err)
	}
	c := &Client{scheme: runtime.NewScheme(), groups: map[string]rest.Interface{}}
	metav1.AddToGroupVersion(c.scheme, schema.GroupVersion{Version: "v1"})
	for _, g := range groups() {
		if err := g.register(c.scheme); err != nil {
			return nil, fmt.Errorf("register %s: %w", g.GroupVersion, err)
		}
	}
	codecs := serializer.NewCodecFactory(c.scheme).WithoutConversion()
	for _, g := range groups() {
		of := rest.CopyConfig(shared)
		of.GroupVersion, of.NegotiatedSerializer, of.APIPath = &g.GroupVersion, codecs, "/apis"
		if g.Group == "" {
			of.APIPath = "/api"
		}
		if g.custom {
			of.NegotiatedSerializer = customCodecs{codecs, c.scheme}
		} else {
			of.ContentType = runtime.ContentTypeProtobuf
			of.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		}
		if c.groups[g.Group], err = rest.RESTClientForConfigAndClient(of, transport); err != nil {
			return nil, fmt.Errorf("make client of %s: %w", g.GroupVersion, err)
		}
	}
	return c, nil
}

// Group reaches the kinds of an API group, "" for the core; nil for one that
// isthmusd does not read.
func (c *Client) Group(name string) rest.Interface { return c.groups[name] }

// Serves asks whether the API server serves a resource of a group and version.
func (c *Client) Serves(ctx context.Context, gv, resource string) (bool, error) {
	var list metav1.APIResourceList
	err := c.Group("").Get().AbsPath("/apis/" + gv).Do(ctx).Into(&list)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask what is served of %s: %w", gv, err)
	}
	for _, r := range list.APIResources {
		if r.Name == resource {
			return true, nil
		}
	}
	return false, nil
}

// Secret reads one Secret.
func (c *Client) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	err := c.Group("").Get().Namespace(namespace).Resource("secrets").Name(name).Do(ctx).Into(s)
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	}
	return s, nil
}

// ConfigMap reads a ConfigMap, nil if there is none. It is listed, which the right to
// follow it covers.
func (c *Client) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	list := &corev1.ConfigMapList{}
	only := &metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	err := c.Group("").Get().Namespace(namespace).Resource("configmaps").
		VersionedParams(only, runtime.NewParameterCodec(c.scheme)).Do(ctx).Into(list)
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, name, err)
	}
	if len(list.Items) == 0 {
		return nil, nil
	}
	return &list.Items[0], nil
}

// TokenReviews ask the API server whose a token is.
func (c *Client) TokenReviews() TokenReviews {
	return TokenReviews{c.Group(authenticationv1.GroupName), runtime.NewParameterCodec(c.scheme)}
}

// TokenReviews is the client of that kind; see authn.TokenReviews.
type TokenReviews struct {
	client rest.Interface
	params runtime.ParameterCodec
}

// Create has a token reviewed.
func (t TokenReviews) Create(ctx context.Context, review *authenticationv1.TokenReview, o metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	answer := &authenticationv1.TokenReview{}
	err := t.client.Post().Resource("tokenreviews").VersionedParams(&o, t.params).Body(review).Do(ctx).Into(answer)
	return answer, err
}

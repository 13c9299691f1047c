// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package kube is the tests' hand on a cluster: apply manifests, wait for a
// state, run a command in a container, read its log.
package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
)

const fieldManager = "isthmus-test"

// Client talks to one cluster.
type Client struct {
	Config  *rest.Config
	Typed   kubernetes.Interface
	Dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// New reads the kubeconfig at path; an empty path means the user's own.
func New(path string) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 100, 200
	return forConfig(cfg)
}

// As is a client that acts in somebody else's name, and may do everything.
func (c *Client) As(user string) (*Client, error) {
	cfg := rest.CopyConfig(c.Config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	return forConfig(cfg)
}

// With is a client that has nothing but a token.
func (c *Client) With(token string) (*Client, error) {
	cfg := rest.AnonymousClientConfig(c.Config)
	cfg.BearerToken = token
	cfg.QPS, cfg.Burst = c.Config.QPS, c.Config.Burst
	return forConfig(cfg)
}

// Heard is the client with somebody who hears the API server's warnings.
func (c *Client) Heard(by rest.WarningHandler) (*Client, error) {
	cfg := rest.CopyConfig(c.Config)
	cfg.WarningHandler = by
	return forConfig(cfg)
}

func forConfig(cfg *rest.Config) (*Client, error) {
	typed, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	disc, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disc))
	return &Client{Config: cfg, Typed: typed, Dynamic: dyn, mapper: mapper}, nil
}

// Parse splits a stream of YAML documents into objects.
func Parse(manifest string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := dec.Decode(o)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("parse manifest: %w", err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

// Apply applies every document of the manifest on the server's side, in order.
// A kind that is not served yet (its CRD came a moment ago) is waited for.
func (c *Client) Apply(ctx context.Context, manifest string) error {
	objs, err := Parse(manifest)
	if err != nil {
		return err
	}
	for _, o := range objs {
		if err := c.ApplyObject(ctx, o); err != nil {
			return fmt.Errorf("apply %s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
	}
	return nil
}

// ApplyObject applies one object.
func (c *Client) ApplyObject(ctx context.Context, o *unstructured.Unstructured) error {
	ri, err := c.Resource(ctx, o.GroupVersionKind(), o.GetNamespace())
	if err != nil {
		return err
	}
	b, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = ri.Patch(ctx, o.GetName(), types.ApplyPatchType, b, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	return err
}

// Delete deletes every document of the manifest; what is not there is no error.
func (c *Client) Delete(ctx context.Context, manifest string) error {
	objs, err := Parse(manifest)
	if err != nil {
		return err
	}
	for _, o := range objs {
		ri, err := c.Resource(ctx, o.GroupVersionKind(), o.GetNamespace())
		if err != nil {
			return err
		}
		if err := ri.Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// Resource finds the client for a kind, waiting up to 30 s for it to be served.
func (c *Client) Resource(ctx context.Context, gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	var m *meta.RESTMapping
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		var err error
		m, err = c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			c.mapper.Reset()
		}
		return err == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s is not served: %w", gvk, err)
	}
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		return c.Dynamic.Resource(m.Resource).Namespace(namespace), nil
	}
	return c.Dynamic.Resource(m.Resource), nil
}

// Run runs a command in a container and returns its standard output. A command
// that ends with a code other than 0 is an error that carries its standard error.
func (c *Client) Run(ctx context.Context, namespace, pod, container string, command ...string) (string, error) {
	req := c.Typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	ex, err := remotecommand.NewWebSocketExecutor(c.Config, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	if err := ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}); err != nil {
		return out.String(), fmt.Errorf("%s in %s/%s: %w: %s", command[0], namespace, pod, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Logs returns a container's log from the given moment on; all if that is zero.
func (c *Client) Logs(ctx context.Context, namespace, pod, container string, since time.Time) (string, error) {
	o := &corev1.PodLogOptions{Container: container}
	if !since.IsZero() {
		o.SinceTime = new(metav1.NewTime(since))
	}
	b, err := c.Typed.CoreV1().Pods(namespace).GetLogs(pod, o).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("log of %s/%s %s: %w", namespace, pod, container, err)
	}
	return string(b), nil
}

// AwaitLog waits until a container's log contains the text, and returns the log.
func (c *Client) AwaitLog(ctx context.Context, namespace, pod, container, text string) (string, error) {
	var log string
	err := wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		var err error
		log, err = c.Logs(ctx, namespace, pod, container, time.Time{})
		return err == nil && strings.Contains(log, text), nil
	})
	if err != nil {
		return log, fmt.Errorf("%s of %s/%s logged nothing with %q: %w", container, namespace, pod, text, err)
	}
	return log, nil
}

// Namespace is the manifest of a namespace.
func Namespace(name string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n"
}

// Pod finds a running pod that is not on its way out by label selector.
func (c *Client) Pod(ctx context.Context, namespace, selector string) (*corev1.Pod, error) {
	l, err := c.Typed.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	for i := range l.Items {
		if p := &l.Items[i]; p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no pod with %s runs in %s", selector, namespace)
}

// PodsReady waits until every pod of the namespace is ready, or says which is not and why.
func (c *Client) PodsReady(ctx context.Context, namespace string, limit time.Duration) error {
	var waiting []string
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		l, err := c.Typed.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		waiting = waiting[:0]
		for i := range l.Items {
			if why := notReady(&l.Items[i]); why != "" {
				waiting = append(waiting, l.Items[i].Name+": "+why)
			}
		}
		return len(l.Items) > 0 && len(waiting) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("pods of %s are not ready: %s: %w", namespace, strings.Join(waiting, "; "), err)
	}
	return nil
}

func notReady(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return "terminating"
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
			return ""
		}
	}
	for _, s := range append(append([]corev1.ContainerStatus{}, p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			return s.Name + " waits: " + w.Reason + " " + w.Message
		}
		if !s.Ready && s.State.Running != nil {
			return s.Name + " runs and is not ready"
		}
		if t := s.LastTerminationState.Terminated; t != nil && !s.Ready {
			return fmt.Sprintf("%s ended with code %d", s.Name, t.ExitCode)
		}
	}
	return string(p.Status.Phase)
}

// Await polls an object until ok says so; the last thing that ok said is in the error.
func (c *Client) Await(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, limit time.Duration, ok func(*unstructured.Unstructured) (bool, string)) error {
	ri, err := c.Resource(ctx, gvk, namespace)
	if err != nil {
		return err
	}
	last := "not there"
	err = wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		o, err := ri.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			last = err.Error()
			return false, nil
		}
		var done bool
		done, last = ok(o)
		return done, nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %s: %w", gvk.Kind, name, last, err)
	}
	return nil
}

// AwaitExists waits until there is an object of a kind of the core group.
func (c *Client) AwaitExists(ctx context.Context, kind, namespace, name string, limit time.Duration) error {
	return c.Await(ctx, corev1.SchemeGroupVersion.WithKind(kind), namespace, name, limit, func(*unstructured.Unstructured) (bool, string) { return true, "" })
}

// AwaitGone waits until the object is deleted.
func (c *Client) AwaitGone(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, limit time.Duration) error {
	ri, err := c.Resource(ctx, gvk, namespace)
	if err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		_, err := ri.Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
	if err != nil {
		return fmt.Errorf("%s %s is still there: %w", gvk.Kind, name, err)
	}
	return nil
}

// Condition reads status.conditions[type] of an object.
func Condition(o *unstructured.Unstructured, kind string) (status, reason, message string) {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, e := range list {
		if m, ok := e.(map[string]any); ok && m["type"] == kind {
			status, _ = m["status"].(string)
			reason, _ = m["reason"].(string)
			message, _ = m["message"].(string)
			return status, reason, message
		}
	}
	return "", "", ""
}

// AwaitNone waits until no pod of the namespace has the label.
func (c *Client) AwaitNone(ctx context.Context, namespace, selector string, limit time.Duration) error {
	n := 0
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		l, err := c.Typed.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, err
		}
		n = len(l.Items)
		return n == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%d pods with %s are left in %s: %w", n, selector, namespace, err)
	}
	return nil
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package enforce watches NetworkPolicies and what they select, and keeps the
// node's rules as they say. It also answers the CNI plugin policygate, so that no
// container runs before its pod's rules stand.
package enforce

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/gate"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

// Options say how to enforce.
type Options struct {
	Node    string                   // whose pods are enforced; the others are their peers
	Program func(policy.Rules) error // makes rules true
	Compile policy.Options
	Window  time.Duration // how long a new pod stays unfiltered
}

// Run enforces until the context ends.
func Run(ctx context.Context, client kubernetes.Interface, o Options) error {
	e := &enforcer{
		Options:    o,
		changed:    make(chan struct{}, 1),
		admissions: make(chan admission),
		known:      map[string]sandbox{},
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	e.pods = factory.Core().V1().Pods().Lister()
	e.namespaces = factory.Core().V1().Namespaces().Lister()
	e.policies = factory.Networking().V1().NetworkPolicies().Lister()
	for _, i := range []cache.SharedIndexInformer{
		factory.Core().V1().Pods().Informer(),
		factory.Core().V1().Namespaces().Informer(),
		factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: e.notify, DeleteFunc: e.notify, UpdateFunc: func(_, o any) { e.notify(o) },
		})
		if err != nil {
			return fmt.Errorf("watch for policies: %w", err)
		}
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	factory.WaitForCacheSync(ctx.Done())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return gate.Serve(ctx, e.admit) })
	g.Go(func() error { return e.loop(ctx) })
	return g.Wait() //nolint:wrapcheck // both wrap their own
}

// admission is a pod that waits for its rules.
type admission struct {
	gate.Request
	done chan error
}

// sandbox is what the plugin said of a pod, earlier and surer than its status.
type sandbox struct {
	uid   string
	ips   []netip.Addr
	since time.Time
}

// enforcer's fields below the channels belong to loop.
type enforcer struct {
	Options
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	changed    chan struct{}
	admissions chan admission

	known      map[string]sandbox // by namespace/name
	waiting    []admission
	programmed *policy.Rules
}

func (e *enforcer) notify(any) {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// admit returns when the pod's rules stand.
func (e *enforcer) admit(ctx context.Context, r gate.Request) error {
	a := admission{Request: r, done: make(chan error, 1)}
	select {
	case e.admissions <- a:
	case <-ctx.Done():
		return fmt.Errorf("the enforcer is busy: %w", ctx.Err())
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the enforcer has not seen the pod: %w", ctx.Err())
	}
}

const retryDelay = time.Second

func (e *enforcer) loop(ctx context.Context) error {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.changed:
		case <-again.C:
		case a := <-e.admissions:
			e.remember(a)
		}
		wait, err := e.once(time.Now())
		if err != nil {
			fmt.Println("enforce policies:", err)
			wait = retryDelay
		}
		if wait > 0 {
			again.Reset(wait)
		}
	}
}

func (e *enforcer) remember(a admission) {
	s := sandbox{uid: a.UID, since: time.Now()}
	for _, ip := range a.IPs {
		if addr, err := netip.ParseAddr(ip); err == nil {
			s.ips = append(s.ips, addr)
		}
	}
	e.known[a.Namespace+"/"+a.Name] = s
	e.waiting = append(e.waiting, a)
}

// once makes the rules as they should be now and lets go the pods that waited for
// them. It returns after what time they change by themselves, if they do.
func (e *enforcer) once(now time.Time) (time.Duration, error) {
	state, seen, wait, err := e.gather(now)
	if err != nil {
		return 0, err
	}
	rules := policy.Compile(state, e.Compile)
	if e.programmed == nil || !reflect.DeepEqual(*e.programmed, rules) {
		if err := e.Program(rules); err != nil {
			return 0, err
		}
		e.programmed = &rules
	}
	var still []admission
	for _, a := range e.waiting {
		if seen[a.UID] {
			a.done <- nil
			continue
		}
		if now.Sub(e.known[a.Namespace+"/"+a.Name].since) < time.Minute {
			still = append(still, a)
		}
	}
	e.waiting = still
	return wait, nil
}

// gather returns the state, the UIDs of the pods in it whose sandboxes are known,
// and when the next of them ceases to be open.
func (e *enforcer) gather(now time.Time) (s policy.State, seen map[string]bool, wait time.Duration, err error) {
	s.Namespaces = map[string]map[string]string{}
	seen = map[string]bool{}
	namespaces, err := e.namespaces.List(labels.Everything())
	if err != nil {
		return s, nil, 0, fmt.Errorf("list namespaces: %w", err)
	}
	for _, n := range namespaces {
		s.Namespaces[n.Name] = n.Labels
	}
	if s.Policies, err = e.list(); err != nil {
		return s, nil, 0, err
	}
	pods, err := e.pods.List(labels.Everything())
	if err != nil {
		return s, nil, 0, fmt.Errorf("list pods: %w", err)
	}
	alive := map[string]bool{}
	for _, o := range pods {
		key := o.Namespace + "/" + o.Name
		box, ok := e.known[key]
		if ok && !owns(o, box.uid) {
			ok = false
		}
		alive[key] = alive[key] || ok
		p, has := pod(o)
		if !has {
			continue
		}
		if ok {
			p.IPs = box.ips
			seen[box.uid] = true
			if left := e.Window - now.Sub(box.since); left > 0 {
				p.Open = true
				wait = earlier(wait, left)
			}
		}
		if o.Spec.NodeName != e.Node {
			p.Open = true // to its own node's enforcer it is not
		}
		if len(p.IPs) > 0 {
			s.Pods = append(s.Pods, p)
		}
	}
	e.forget(alive, now)
	return s, seen, wait, nil
}

func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b < a {
		return b
	}
	return a
}

// forget drops sandboxes whose pods are gone. The youngest are kept: their pods
// may not have been seen yet.
func (e *enforcer) forget(alive map[string]bool, now time.Time) {
	for key, s := range e.known {
		if !alive[key] && now.Sub(s.since) > time.Minute {
			delete(e.known, key)
		}
	}
}

func (e *enforcer) list() ([]*networkingv1.NetworkPolicy, error) {
	all, err := e.policies.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	sortPolicies(all)
	return all, nil
}

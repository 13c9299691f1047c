// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
)

// plane is isthmusd in a space of its own.
type plane struct {
	space   *space
	process *process
	roots   string // file
}

var planeAddress = netip.AddrFrom4([4]byte{10, 9, 0, 1})

// debugAddr is where isthmusd serves metrics, in its own space.
const debugAddr = "127.0.0.1:15080"

func (l *Lab) startPlane() error {
	s, err := l.space(systemNamespace, nil, planeAddress)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(l.key.Public())
	if err != nil {
		return err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(l.dir, "token-key.pem"), key, 0o644); err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(l.dir, "ca"), uidApp, uidApp); err != nil {
		return err
	}
	l.plane = &plane{space: s, roots: filepath.Join(l.dir, "ca", "root-cert.pem")}
	l.dns.set(planeName, planeAddress)
	l.dns.set(planeName+"."+clusterDomain, planeAddress)
	return l.runPlane()
}

// runPlane starts isthmusd and waits until it accepts connections.
func (l *Lab) runPlane() error {
	p, err := start(l.plane.space, program{
		name: "isthmusd", uid: uidApp, dir: l.dir,
		args: []string{
			l.program("isthmusd"), "--config-dir", filepath.Join(l.dir, "config"), "--ca-dir", filepath.Join(l.dir, "ca"),
			"--token-key", filepath.Join(l.dir, "token-key.pem"), "--topology", topologyName, "--namespace", systemNamespace, "--http-addr", debugAddr,
		},
	}, l.logs())
	if err != nil {
		return err
	}
	l.plane.process = p
	return await(patience, func() error {
		if p.ended() {
			return final{fmt.Errorf("isthmusd ended: %w", p.err)}
		}
		if _, err := os.Stat(l.plane.roots); err != nil {
			return err
		}
		return l.plane.space.do(func() error {
			c, err := net.DialTimeout("tcp", "127.0.0.1:15012", time.Second)
			if err != nil {
				return err
			}
			return c.Close()
		})
	})
}

// KillControlPlane ends isthmusd as a crash does.
func (l *Lab) KillControlPlane() {
	l.t.Helper()
	l.count()
	l.plane.process.kill()
}

// RestartControlPlane starts isthmusd anew, with the same CA.
func (l *Lab) RestartControlPlane() {
	l.t.Helper()
	l.must(l.runPlane())
}

// token is what the kubelet would mount for the pod.
func (l *Lab) token(namespace, account, pod string) ([]byte, error) {
	s, err := authn.SignStatic(l.key, authn.Subject{
		Name: "system:serviceaccount:" + namespace + ":" + account, Pod: pod, NotAfter: time.Now().Add(time.Hour),
	})
	return []byte(s), err
}

// final is an error that waiting longer does not cure.
type final struct{ error }

// await calls f until it succeeds or the time is over.
func await(limit time.Duration, f func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		var end final
		if errors.As(err, &end) {
			return end.error
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("not after %s: %w", limit, err)
		case <-tick.C:
		}
	}
}

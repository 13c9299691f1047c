// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// shown is a certificate that a proxy shows to its peers.
type shown struct {
	Serial string    `json:"serial_number"`
	End    time.Time `json:"expiration_time"`
	Names  []struct {
		URI string `json:"uri"`
	} `json:"subject_alt_names"`
}

// certificates are the pod's own that its proxy works with: several while one takes
// another's place.
func (p *Pod) certificates() ([]shown, error) {
	b, err := p.Admin("/certs")
	if err != nil {
		return nil, err
	}
	var all struct {
		Certificates []struct {
			Chain []shown `json:"cert_chain"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	var own []shown
	for _, c := range all.Certificates {
		for _, s := range c.Chain {
			if len(s.Names) > 0 && strings.HasPrefix(s.Names[0].URI, "spiffe://") {
				own = append(own, s)
			}
		}
	}
	if len(own) == 0 {
		return nil, errors.New("the proxy has no certificate")
	}
	return own, nil
}

// OutliveCertificates waits until the certificates that the proxies show now have
// ended, and others have taken their place. Give the pods a short SECRET_TTL.
func (l *Lab) OutliveCertificates(pods ...*Pod) {
	l.t.Helper()
	for _, p := range pods {
		first, err := p.certificates()
		l.must(err)
		l.must(await(patience, func() error {
			now, err := p.certificates()
			if err != nil {
				return err
			}
			for _, c := range now {
				if c.Serial == first[0].Serial {
					return fmt.Errorf("%s still shows certificate %s", p.Name, c.Serial)
				}
			}
			if left := time.Until(first[0].End); left > 0 {
				return fmt.Errorf("certificate %s of %s is valid for another %s", first[0].Serial, p.Name, left)
			}
			return nil
		}))
	}
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"fmt"
)

// WantConfig waits until the proxy's configuration says something.
func (p *Pod) WantConfig(text string) {
	p.lab.t.Helper()
	p.lab.must(await(patience, func() error {
		b, err := p.Admin("/config_dump")
		if err == nil && !bytes.Contains(b, []byte(text)) {
			err = fmt.Errorf("the configuration of %s does not say %q", p.Name, text)
		}
		return err
	}))
}

// HasCluster tells whether the proxy has the cluster now.
func (p *Pod) HasCluster(name string) bool {
	p.lab.t.Helper()
	b, err := p.Admin("/clusters")
	p.lab.must(err)
	return bytes.Contains(append([]byte("\n"), b...), []byte("\n"+name+"::"))
}

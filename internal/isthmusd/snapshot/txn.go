// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"reflect"

	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Txn collects the changes of one commit. What is put belongs to the Snapshot
// from then on and must not be modified. Putting what is there already, or
// deleting what is not, changes nothing.
type Txn struct {
	services            *tableTxn[*model.Service]
	rows                *tableTxn[*endpointRow]
	endpoints           *tableTxn[*endpointSet]
	summaries           *tableTxn[*summaryRow]
	workloads           *tableTxn[*model.Workload]
	nodes               *tableTxn[*model.Node]
	accounts            *tableTxn[model.Key]
	namespaces          *tableTxn[*model.Namespace]
	secrets             *tableTxn[*model.Secret]
	virtualServices     *tableTxn[*model.VirtualService]
	destinationRules    *tableTxn[*model.DestinationRule]
	gateways            *tableTxn[*model.Gateway]
	sidecars            *tableTxn[*model.Sidecar]
	peerAuthentications *tableTxn[*model.PeerAuthentication]
	config              topology.Config
	compiled
	mesh    *meshconfig.MeshConfig
	changes Changes
	private Changes // of tables that no View reads, but later commits do
	touched touched
}

func newTxn(s *Snapshot) *Txn {
	c, private := Changes{}, Changes{}
	return &Txn{
		services: s.services.txn(c), rows: s.rows.txn(private), endpoints: s.endpoints.txn(c),
		summaries: s.summaries.txn(c), workloads: s.workloads.txn(c),
		nodes: s.nodes.txn(private), accounts: s.accounts.txn(private), namespaces: s.namespaces.txn(c), secrets: s.secrets.txn(c),
		virtualServices: s.virtualServices.txn(c), destinationRules: s.destinationRules.txn(c),
		gateways: s.gateways.txn(c), sidecars: s.sidecars.txn(c),
		peerAuthentications: s.peerAuthentications.txn(c),
		config:              s.config, compiled: s.compiled, mesh: s.mesh, changes: c, private: private, touched: newTouched(),
	}
}

// finish derives what depends on what was put and makes the new Snapshot.
func (x *Txn) finish(old *Snapshot) *Snapshot {
	x.derive()
	return &Snapshot{
		tables: tables{
			services: x.services.commit(), rows: x.rows.commit(), endpoints: x.endpoints.commit(),
			summaries: x.summaries.commit(), workloads: x.workloads.commit(),
			nodes: x.nodes.commit(), accounts: x.accounts.commit(), namespaces: x.namespaces.commit(), secrets: x.secrets.commit(),
			virtualServices: x.virtualServices.commit(), destinationRules: x.destinationRules.commit(),
			gateways: x.gateways.commit(), sidecars: x.sidecars.commit(),
			peerAuthentications: x.peerAuthentications.commit(),
		},
		revision: old.revision + 1, config: x.config, compiled: x.compiled, mesh: x.mesh,
	}
}

// PutService adds or replaces a service.
func (x *Txn) PutService(s *model.Service) {
	if _, changed := x.services.put(s); changed {
		x.touched.services[s.ServiceKey] = struct{}{}
	}
}

// DeleteService removes a service; its endpoints are removed by their source.
func (x *Txn) DeleteService(k model.ServiceKey) {
	if _, changed := x.services.remove(serviceKey(k)); changed {
		x.touched.services[k] = struct{}{}
	}
}

// PutEndpoints sets what one source knows of a service's endpoints. An endpoint
// that names a Workload is completed from it (labels, account, locality, mesh
// TLS). The service need not be there yet.
func (x *Txn) PutEndpoints(k model.ServiceKey, source string, es []model.Endpoint) {
	if _, changed := x.rows.put(&endpointRow{service: k, source: source, endpoints: es}); changed {
		x.touched.services[k] = struct{}{}
	}
}

// DeleteEndpoints forgets what a source knew of a service's endpoints.
func (x *Txn) DeleteEndpoints(k model.ServiceKey, source string) {
	if _, changed := x.rows.remove(rowKey(k, source)); changed {
		x.touched.services[k] = struct{}{}
	}
}

// PutWorkload adds or replaces a workload. Without a Locality it gets its node's.
func (x *Txn) PutWorkload(w *model.Workload) {
	if old, changed := x.workloads.put(w); changed {
		x.touched.workloads = append(x.touched.workloads, old, w)
	}
}

// DeleteWorkload removes a workload.
func (x *Txn) DeleteWorkload(kind model.WorkloadKind, k model.Key) {
	if old, changed := x.workloads.remove(workloadKey(kind, k)); changed {
		x.touched.workloads = append(x.touched.workloads, old)
	}
}

// PutNode sets where a node stands.
func (x *Txn) PutNode(n *model.Node) {
	if _, changed := x.nodes.put(n); changed {
		x.touched.nodes[n.Name] = struct{}{}
	}
}

// DeleteNode removes a node.
func (x *Txn) DeleteNode(name string) {
	if _, changed := x.nodes.remove(name); changed {
		x.touched.nodes[name] = struct{}{}
	}
}

// PutAccount adds a ServiceAccount.
func (x *Txn) PutAccount(k model.Key) { x.accounts.put(k) }

// DeleteAccount removes a ServiceAccount.
func (x *Txn) DeleteAccount(k model.Key) { x.accounts.remove(k.String()) }

// PutNamespace adds or replaces a namespace.
func (x *Txn) PutNamespace(n *model.Namespace) {
	if _, changed := x.namespaces.put(n); changed {
		x.changes.add(Namespaces, Holders, "")
	}
}

// DeleteNamespace removes a namespace; its objects are removed one by one.
func (x *Txn) DeleteNamespace(name string) {
	if _, changed := x.namespaces.remove(name); changed {
		x.changes.add(Namespaces, Holders, "")
	}
}

// PutSecret adds or replaces a gateway credential.
func (x *Txn) PutSecret(s *model.Secret) { x.secrets.put(s) }

// DeleteSecret removes a gateway credential.
func (x *Txn) DeleteSecret(k model.Key) { x.secrets.remove(k.String()) }

// PutVirtualService adds or replaces a VirtualService, its hosts fully qualified.
func (x *Txn) PutVirtualService(v *model.VirtualService) { x.virtualServices.put(v) }

// DeleteVirtualService removes a VirtualService.
func (x *Txn) DeleteVirtualService(k model.Key) { x.virtualServices.remove(k.String()) }

// PutDestinationRule adds or replaces a DestinationRule, its host fully qualified.
func (x *Txn) PutDestinationRule(d *model.DestinationRule) { x.destinationRules.put(d) }

// DeleteDestinationRule removes a DestinationRule.
func (x *Txn) DeleteDestinationRule(k model.Key) { x.destinationRules.remove(k.String()) }

// PutGateway adds or replaces a Gateway.
func (x *Txn) PutGateway(g *model.Gateway) { x.gateways.put(g) }

// DeleteGateway removes a Gateway.
func (x *Txn) DeleteGateway(k model.Key) { x.gateways.remove(k.String()) }

// PutSidecar adds or replaces a Sidecar.
func (x *Txn) PutSidecar(s *model.Sidecar) {
	if len(x.sidecars.list(ByNamespace, s.Namespace)) == 0 {
		x.changes.add(Sidecars, Holders, "")
	}
	x.sidecars.put(s)
}

// DeleteSidecar removes a Sidecar.
func (x *Txn) DeleteSidecar(k model.Key) {
	if _, changed := x.sidecars.remove(k.String()); changed && len(x.sidecars.list(ByNamespace, k.Namespace)) == 0 {
		x.changes.add(Sidecars, Holders, "")
	}
}

// PutPeerAuthentication adds or replaces a PeerAuthentication.
func (x *Txn) PutPeerAuthentication(p *model.PeerAuthentication) { x.peerAuthentications.put(p) }

// DeletePeerAuthentication removes a PeerAuthentication.
func (x *Txn) DeletePeerAuthentication(k model.Key) { x.peerAuthentications.remove(k.String()) }

// SetConfig replaces the topology configuration.
func (x *Txn) SetConfig(c topology.Config) {
	if !reflect.DeepEqual(x.config, c) {
		x.config, x.compiled = c, compile(c)
		x.changes.add(Config, ByKey, "")
	}
}

// SetMesh replaces Istio's MeshConfig; defaults are to be applied already.
func (x *Txn) SetMesh(m *meshconfig.MeshConfig) {
	if !proto.Equal(x.mesh, m) {
		x.mesh = m
		x.changes.add(Mesh, ByKey, "")
	}
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Topology is a MeshTopology as far as status shows it. It is read from the object
// as it is, not through the API's types, so that the tool also works with operators
// of other versions.
type Topology struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		Topology string `json:"topology"`
	} `json:"spec"`
	Status TopologyStatus `json:"status"`
}

// TopologyStatus is the part of status that is shown.
type TopologyStatus struct {
	ObservedGeneration int64              `json:"observedGeneration"`
	Topology           string             `json:"topology"`
	Version            string             `json:"version"`
	Revision           string             `json:"revision"`
	Conditions         []metav1.Condition `json:"conditions"`
	Transition         *struct {
		From, To, Phase, Message string
	} `json:"transition"`
	Gateways []struct {
		Name            string
		Addresses       []string
		Ready, Replicas int32
	} `json:"gateways"`
	Members *struct {
		Namespaces, Pods, Injected, Missing int32
		Examples                            []string
	} `json:"members"`
}

// topologyFrom reads what is shown of an object.
func topologyFrom(object map[string]any) (Topology, error) {
	var t Topology
	b, err := yaml.Marshal(object)
	if err != nil {
		return t, err
	}
	return t, yaml.Unmarshal(b, &t)
}

// condition returns the status of a condition, "-" if it is not there.
func (t Topology) condition(kind string) string {
	for _, c := range t.Status.Conditions {
		if c.Type == kind {
			return string(c.Status)
		}
	}
	return "-"
}

// StatusOptions is `isthmusctl status`.
type StatusOptions struct {
	tool Tool
	kube *connection
	// Name of one MeshTopology, for details; "" for a table of all.
	Name string
}

func statusCommand(t Tool, k *connection) *cobra.Command {
	o := &StatusOptions{tool: t, kube: k}
	return &cobra.Command{
		Use:   "status [NAME]",
		Short: "show the meshes of the cluster",
		Long: "status shows all MeshTopologies as a table, or one with its conditions, gateways and\n" +
			"members. With a name it fails unless that one is Ready, so that scripts can ask.",
		Args: cobra.MaximumNArgs(1),
		RunE: run(o),
	}
}

// Complete takes the name.
func (o *StatusOptions) Complete(_ context.Context, args []string) error {
	if len(args) > 0 {
		o.Name = args[0]
	}
	return nil
}

// Validate has nothing to refuse.
func (o *StatusOptions) Validate() error { return nil }

// errNotReady is what scripts see in the exit code.
var errNotReady = errors.New("not Ready")

// Run asks the cluster and prints.
func (o *StatusOptions) Run(ctx context.Context) error {
	c, err := o.kube.cluster()
	if err != nil {
		return err
	}
	all, err := c.Topologies(ctx)
	if err != nil {
		return err
	}
	if o.Name == "" {
		return printTable(o.tool.Streams.Out, all)
	}
	for _, t := range all {
		if t.Name != o.Name {
			continue
		}
		if err := printDetails(o.tool.Streams.Out, t); err != nil {
			return err
		}
		if t.condition("Ready") != "True" {
			return fmt.Errorf("MeshTopology %s: %w", t.Name, errNotReady)
		}
		return nil
	}
	return fmt.Errorf("there is no MeshTopology %s", o.Name)
}

func printTable(w io.Writer, all []Topology) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "There is no MeshTopology in this cluster.")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "NAME\tTOPOLOGY\tACTIVE\tREADY\tENFORCED\tMEMBERS\tVERSION")
	for _, t := range all {
		members := "-"
		if t.Status.Members != nil {
			members = fmt.Sprint(t.Status.Members.Namespaces)
		}
		fmt.Fprintln(tw, strings.Join([]string{
			t.Name, t.Spec.Topology, dash(t.Status.Topology), t.condition("Ready"),
			t.condition("EgressEnforced"), members, dash(t.Status.Version),
		}, "\t"))
	}
	return tw.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printDetails(w io.Writer, t Topology) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(tw, strings.Join(cells, "\t")) }
	row("Topology:", t.Spec.Topology)
	row("Active:", dash(t.Status.Topology))
	row("Version:", dash(t.Status.Version))
	row("Revision:", dash(t.Status.Revision))
	if x := t.Status.Transition; x != nil {
		row("Transition:", fmt.Sprintf("%s → %s, %s: %s", x.From, x.To, x.Phase, dash(x.Message)))
	}
	if m := t.Status.Members; m != nil {
		row("Members:", fmt.Sprintf("%d namespaces, %d of %d pods injected, %d missing", m.Namespaces, m.Injected, m.Pods, m.Missing))
		for _, e := range m.Examples {
			row("", "without proxy: "+e)
		}
	}
	for _, g := range t.Status.Gateways {
		row("Gateway "+g.Name+":", fmt.Sprintf("%s, %d of %d ready", dash(strings.Join(g.Addresses, ", ")), g.Ready, g.Replicas))
	}
	if t.Status.ObservedGeneration < t.Generation {
		row("Note:", "the operator has not seen the latest change yet")
	}
	row("")
	row("CONDITION", "STATUS", "REASON", "MESSAGE")
	for _, c := range t.Status.Conditions {
		row(c.Type, string(c.Status), c.Reason, c.Message)
	}
	return tw.Flush()
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the API group isthmus.dev: MeshTopology, which people
// write, and MeshMember, which the operator writes for tenants to read. It holds
// types, defaults, validation rules and the names of conditions and reasons;
// nothing else. v1alpha1 changes only by addition.
//
// +kubebuilder:object:generate=true
// +groupName=isthmus.dev
package v1alpha1

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of this package's kinds.
var GroupVersion = schema.GroupVersion{Group: "isthmus.dev", Version: "v1alpha1"}

// AddToScheme registers the kinds.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &MeshTopology{}, &MeshTopologyList{}, &MeshMember{}, &MeshMemberList{})
	v1.AddToGroupVersion(s, GroupVersion)
	return nil
}

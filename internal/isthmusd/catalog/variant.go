// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// item is a resource by part and name, or, without a name, the list of a part's names.
type item struct {
	part resource.Part
	name string
}

// variant is an item as built for the proxies whose attributes have these values.
type variant struct {
	item
	attributes []snapshot.Attribute
	values     string
	reads      []snapshot.Read
	// resource that was built; nil if there is none.
	resource *resource.Resource
	// names that were listed, when the item is a list.
	names []string
	users map[*shelf]struct{}
}

// family is all variants of one item. A variant serves every proxy that has
// its values: the builder, asking the same questions, would get the same answers.
type family struct {
	signatures []*signature[*variant]
}

// signature is a set of attributes, and what was built by their values.
type signature[T any] struct {
	attributes []snapshot.Attribute
	byValues   map[string]T
}

func (s *signature[T]) find(x *snapshot.Snapshot, p *model.Proxy) (T, bool) {
	t, ok := s.byValues[valuesOf(s.attributes, x, p)]
	return t, ok
}

func valuesOf(as []snapshot.Attribute, x *snapshot.Snapshot, p *model.Proxy) string {
	var b strings.Builder
	for _, a := range as {
		b.WriteString(x.Attribute(a, p))
		b.WriteByte(0)
	}
	return b.String()
}

func (f *family) find(x *snapshot.Snapshot, p *model.Proxy) *variant {
	for _, s := range f.signatures {
		if v, ok := s.find(x, p); ok {
			return v
		}
	}
	return nil
}

func (f *family) len() int {
	n := 0
	for _, s := range f.signatures {
		n += len(s.byValues)
	}
	return n
}

func (f *family) add(v *variant) {
	for _, s := range f.signatures {
		if slices.Equal(s.attributes, v.attributes) {
			s.byValues[v.values] = v
			return
		}
	}
	f.signatures = append(f.signatures, &signature[*variant]{
		attributes: v.attributes, byValues: map[string]*variant{v.values: v},
	})
}

// remove takes v out, and tells whether the family is empty now.
func (f *family) remove(v *variant) bool {
	for i, s := range f.signatures {
		if s.byValues[v.values] == v && slices.Equal(s.attributes, v.attributes) {
			delete(s.byValues, v.values)
			if len(s.byValues) == 0 {
				f.signatures = slices.Delete(f.signatures, i, i+1)
			}
			break
		}
	}
	return len(f.signatures) == 0
}

// same finds a resource of the family with equal content, so that what did not
// really change keeps its pointer and what two variants share is held once.
func (f *family) same(r *resource.Resource) *resource.Resource {
	for _, s := range f.signatures {
		for _, v := range s.byValues {
			if equalContent(v.resource, r) {
				return v.resource
			}
		}
	}
	return nil
}

// variant finds the item as the proxy should see it, or builds it. last is what
// the shelf had before, to fall back on.
func (c *Catalog) variant(it item, p *model.Proxy, last *variant) (*variant, error) {
	f := c.families[it]
	if f != nil {
		if v := f.find(c.snap, p); v != nil {
			return v, nil
		}
	}
	v, err := c.build(it, p, last)
	if err != nil && last == nil && it.name == "" {
		return nil, err // without a list there is nothing to serve
	}
	if f == nil {
		f = &family{}
		c.families[it] = f
	}
	if v.resource != nil {
		if last != nil && equalContent(last.resource, v.resource) {
			v.resource = last.resource
		} else if r := f.same(v.resource); r != nil {
			v.resource = r
		}
	}
	f.add(v)
	for _, r := range v.reads {
		if c.byRead[r] == nil {
			c.byRead[r] = map[*variant]struct{}{}
		}
		c.byRead[r][v] = struct{}{}
	}
	return v, nil
}

// forget takes a variant out of the catalog; its users still hold it.
func (c *Catalog) forget(v *variant) {
	if f := c.families[v.item]; f != nil && f.remove(v) {
		delete(c.families, v.item)
		delete(c.problems, v.item)
	}
	for _, r := range v.reads {
		delete(c.byRead[r], v)
		if len(c.byRead[r]) == 0 {
			delete(c.byRead, r)
		}
	}
}

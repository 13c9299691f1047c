// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// server is a real etcd.
func server(t *testing.T) *clientv3.Client {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.LogLevel, c.UnsafeNoFsync = t.TempDir(), "error", true
	anyPort := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = anyPort, anyPort, anyPort, anyPort
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		t.Fatal("etcd is not ready")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Clients[0].Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func put(t *testing.T, c *clientv3.Client, key, value string, o ...clientv3.OpOption) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, value, o...); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, c *clientv3.Client) map[string]string {
	t.Helper()
	entries, _, err := all(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, e := range entries {
		m[e.Key] = string(e.Value)
	}
	return m
}

func TestLoadMakesWhatSaveFound(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := server(t)
	want := map[string]string{}
	for i := range page + batch + 1 {
		k := fmt.Sprintf("/registry/many/%04d", i)
		want[k] = fmt.Sprint(i)
		put(t, c, k, want[k])
	}
	lease, err := c.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, "/registry/events/before", "expires", clientv3.WithLease(lease.ID))
	put(t, c, "/elsewhere", "not ours")
	var file bytes.Buffer
	if err := Save(ctx, c, &file); err != nil {
		t.Fatal(err)
	}
	snapshot := file.String()

	put(t, c, "/registry/many/0001", "changed")
	put(t, c, "/registry/after", "new")
	if _, err := c.Delete(ctx, "/registry/many/0002"); err != nil {
		t.Fatal(err)
	}
	untouched, err := c.Get(ctx, "/registry/many/0003")
	if err != nil {
		t.Fatal(err)
	}
	changed := content(t, c)
	for name, broken := range map[string]string{
		"half of it":    snapshot[:len(snapshot)/2],
		"a line less":   snapshot[:strings.LastIndex(strings.TrimSpace(snapshot), "\n")],
		"another thing": `{"kind":"Pod"}`,
		"nothing":       "",
	} {
		if err := Load(ctx, c, strings.NewReader(broken)); err == nil {
			t.Errorf("%s was taken for a snapshot", name)
		}
	}
	if d := cmp.Diff(changed, content(t, c)); d != "" {
		t.Errorf("what is no snapshot changed etcd (-before +after):\n%s", d)
	}

	if err := Load(ctx, c, strings.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, content(t, c)); d != "" {
		t.Errorf("after the snapshot was loaded (-want +got):\n%s", d)
	}
	again, err := c.Get(ctx, "/registry/many/0003")
	if err != nil {
		t.Fatal(err)
	}
	if again.Kvs[0].ModRevision != untouched.Kvs[0].ModRevision {
		t.Error("what was as the snapshot says was written again")
	}
	if r, err := c.Get(ctx, "/elsewhere"); err != nil || len(r.Kvs) != 1 {
		t.Errorf("what is not the API server's: %v, %v", r, err)
	}
}

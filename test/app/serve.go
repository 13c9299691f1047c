// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// serveOptions says where to listen; an empty list leaves that protocol out.
type serveOptions struct {
	name, bind, cert, key, log string
	selfSigned                 string
	http, https, tcp, udp      []string
	grpc, mysql                []string
}

func serveCommand() *cobra.Command {
	o := &serveOptions{}
	c := &cobra.Command{
		Use:   "serve",
		Short: "answer on every address given, saying who asked",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return serve(c.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.name, "name", hostname(), "name to answer with")
	f.StringVar(&o.bind, "bind", "", "address put before ports given as :PORT")
	f.StringVar(&o.cert, "cert", "", "certificate file for --https")
	f.StringVar(&o.key, "key", "", "key file for --https")
	f.StringVar(&o.selfSigned, "self-signed", "", "DNS name to make a certificate for, instead of --cert and --key")
	f.StringVar(&o.log, "log", "", "file that gets the log as well as stdout")
	f.StringSliceVar(&o.http, "http", nil, "HTTP/1.1, h2c and WebSocket (/ws) addresses")
	f.StringSliceVar(&o.https, "https", nil, "HTTPS addresses")
	f.StringSliceVar(&o.tcp, "tcp", nil, "TCP line echo addresses")
	f.StringSliceVar(&o.udp, "udp", nil, "UDP echo addresses")
	f.StringSliceVar(&o.mysql, "mysql", nil, "TCP line echo addresses that greet first, as MySQL does")
	f.StringSliceVar(&o.grpc, "grpc", nil, "gRPC echo addresses")
	return c
}

// serve listens everywhere before it answers anywhere, so that a port that is
// taken is an error at once, and returns when ctx ends.
func serve(ctx context.Context, o *serveOptions) error {
	out := io.Writer(os.Stdout)
	if o.log != "" {
		f, err := os.OpenFile(o.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		defer f.Close()
		out = io.MultiWriter(out, f)
	}
	s := &server{name: o.name, log: newLog(o.name, out)}
	var runs []func(context.Context) error
	add := func(addrs []string, make func(addr string) (func(context.Context) error, error)) error {
		for _, a := range addrs {
			if len(a) > 0 && a[0] == ':' {
				a = o.bind + a
			}
			run, err := make(a)
			if err != nil {
				return err
			}
			runs = append(runs, run)
		}
		return nil
	}
	var pair tls.Certificate
	if len(o.https) > 0 {
		var err error
		if pair, err = o.certificate(); err != nil {
			return err
		}
	}
	steps := []struct {
		addrs []string
		make  func(addr string) (func(context.Context) error, error)
	}{
		{o.http, s.http},
		{o.https, func(a string) (func(context.Context) error, error) { return s.https(a, pair) }},
		{o.tcp, func(a string) (func(context.Context) error, error) { return s.tcp(a, "") }},
		{o.mysql, func(a string) (func(context.Context) error, error) { return s.tcp(a, "greetings") }},
		{o.udp, s.udp},
		{o.grpc, s.grpc},
	}
	for _, st := range steps {
		if err := add(st.addrs, st.make); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range runs {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// certificate loads the pair of --cert and --key, or makes one for --self-signed.
func (o *serveOptions) certificate() (tls.Certificate, error) {
	if o.selfSigned == "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return pair, fmt.Errorf("load --cert and --key: %w", err)
		}
		return pair, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), DNSNames: []string{o.selfSigned}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-sign: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

type server struct {
	name string
	log  *requestLog
}

func (s *server) http(addr string) (func(context.Context) error, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return serveHTTP(&http.Server{Handler: s.handler("http"), Protocols: &p}, l), nil
}

func (s *server) https(addr string, pair tls.Certificate) (func(context.Context) error, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTPS: %w", err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	return serveHTTP(&http.Server{Handler: s.handler("https")}, tls.NewListener(l, conf)), nil
}

func serveHTTP(h *http.Server, l net.Listener) func(context.Context) error {
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = h.Close() })
		defer stop()
		if err := h.Serve(l); err != nil && err != http.ErrServerClosed {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	}
}

func (s *server) grpc(addr string) (func(context.Context) error, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for gRPC: %w", err)
	}
	g := grpc.NewServer()
	registerEcho(g, s)
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, g.Stop)
		defer stop()
		return g.Serve(l)
	}, nil
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return h
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Limits of HTTP/2.
const (
	frameSize      = 16 << 10
	defaultWindow  = 64<<10 - 1
	ourStream      = 1
	messageHeader  = 5
	connectTimeout = 30 * time.Second
	// fastWindow is about what Envoy gives a control plane.
	fastWindow = 16 << 20
	// slowWindow is little enough that a slow reader is felt.
	slowWindow = 64 << 10
)

// conn is one gRPC stream with a connection of its own. It is used by one
// goroutine, which reads, and writes what its reading asks for. NOTE: a gRPC
// library would take several goroutines and buffers for each of thousands of
// proxies, and more CPU than the control plane that is measured.
type conn struct {
	net    net.Conn
	framer *http2.Framer
	read   *countingReader

	// window is what we let the server have under way, unread what it may be told
	// that we have read.
	window, unread uint32
	// out waits for the server's windows: one of the stream, one of the connection.
	out         []byte
	stream, all int64
	initial     int64
}

// countingReader slows reading down to a rate, if there is one.
type countingReader struct {
	io.Reader
	// rate in bytes a second; 0 is as fast as possible.
	rate *atomic.Int32
	// stop ends a wait.
	stop <-chan struct{}
}

func (r *countingReader) Read(p []byte) (int, error) {
	if r.rate.Load() > 0 {
		p = p[:min(len(p), 256)]
	}
	n, err := r.Reader.Read(p)
	if rate := r.rate.Load(); rate > 0 && n > 0 {
		select {
		case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
		case <-r.stop:
		}
	}
	return n, err
}

// dial opens a connection and the stream of a method on it. A narrow one takes
// little at a time.
func dial(addr, method string, window uint32, reader *countingReader) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, connectTimeout)
	if err != nil {
		return nil, err
	}
	reader.Reader = c
	out := &conn{net: c, read: reader, window: window, stream: defaultWindow, all: defaultWindow, initial: defaultWindow}
	if window < fastWindow {
		// The kernel would read ahead of us; if it does all the same, we are less slow.
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	if err := out.open(addr, method); err != nil {
		c.Close()
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return out, nil
}

func (c *conn) open(addr, method string) error {
	var first bytes.Buffer
	first.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&first, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", addr},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	err := errors.Join(
		f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: c.window}),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: ourStream, BlockFragment: block.Bytes(), EndHeaders: true}),
	)
	if c.window > defaultWindow {
		err = errors.Join(err, f.WriteWindowUpdate(0, c.window-defaultWindow))
	}
	if err != nil {
		return err
	}
	c.framer = http2.NewFramer(c.net, &bufferedReader{from: c.read})
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = c.net.Write(first.Bytes())
	return err
}

// send queues a message and writes as much as the server's windows allow.
func (c *conn) send(message []byte) error {
	c.out = append(c.out, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(message)))
	c.out = append(c.out, message...)
	return c.flush()
}

func (c *conn) flush() error {
	for len(c.out) > 0 {
		n := min(int64(len(c.out)), c.stream, c.all, frameSize)
		if n <= 0 {
			return nil
		}
		if err := c.framer.WriteData(ourStream, false, c.out[:n]); err != nil {
			return err
		}
		c.out = c.out[n:]
		c.stream -= n
		c.all -= n
	}
	c.out = nil
	return nil
}

// errGoAway is how a server says that the connection is old.
var errGoAway = errors.New("the server let the connection go")

// next reads frames until there is something of the stream, and returns that. It
// is good until the next call.
func (c *conn) next() ([]byte, error) {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			return f.Data(), c.took(uint32(len(f.Data())))
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				return nil, refused(f)
			}
		case *http2.SettingsFrame:
			err = c.settings(f)
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				c.all += int64(f.Increment)
			} else {
				c.stream += int64(f.Increment)
			}
			err = c.flush()
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("the server reset the stream: %v", f.ErrCode)
		case *http2.GoAwayFrame:
			err = errGoAway
		}
		if err != nil {
			return nil, err
		}
	}
}

// took lets the server send as much again, in large steps.
func (c *conn) took(n uint32) error {
	c.unread += n
	if c.unread < c.window/2 {
		return nil
	}
	give := c.unread
	c.unread = 0
	return errors.Join(c.framer.WriteWindowUpdate(0, give), c.framer.WriteWindowUpdate(ourStream, give))
}

func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		c.stream += int64(v) - c.initial
		c.initial = int64(v)
	}
	return errors.Join(c.framer.WriteSettingsAck(), c.flush())
}

// status is the end of a stream, as the server explains it.
type status struct{ code, message string }

func (s status) Error() string {
	return "the server ended the stream with status " + s.code + ": " + s.message
}

// exhausted tells whether the server had no room for the stream.
func (s status) exhausted() bool { return s.code == "8" || s.code == "14" }

func refused(f *http2.MetaHeadersFrame) error {
	var s status
	for _, h := range f.RegularFields() {
		switch h.Name {
		case "grpc-status":
			s.code = h.Value
		case "grpc-message":
			s.message = h.Value
		}
	}
	return s
}

func (c *conn) close() { c.net.Close() }

// bufferedReader reads more than a frame's header at a time.
type bufferedReader struct {
	from       io.Reader
	buf        [8 << 10]byte
	start, end int
}

func (b *bufferedReader) Read(p []byte) (int, error) {
	if b.start == b.end {
		if len(p) >= len(b.buf) {
			return b.from.Read(p)
		}
		n, err := b.from.Read(b.buf[:])
		if n == 0 {
			return 0, err
		}
		b.start, b.end = 0, n
	}
	n := copy(p, b.buf[b.start:b.end])
	b.start += n
	return n, nil
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package journey

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Cleanup takes down what tests brought up: each at the end of its test, and all
// that is left when the process is interrupted, which ends no test by itself.
type Cleanup struct {
	mu    sync.Mutex
	next  int
	downs map[int]func() error
}

// NewCleanup returns one that heeds interrupts from now on.
func NewCleanup() *Cleanup {
	c := &Cleanup{downs: map[int]func() error{}}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupts
		if err := c.all(); err != nil {
			fmt.Fprintln(os.Stderr, "take down:", err)
		}
		os.Exit(130)
	}()
	return c
}

// Add notes how to take something down, and returns how to do it: once.
func (c *Cleanup) Add(down func() error) func() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next++
	c.downs[id] = down
	return func() error {
		c.mu.Lock()
		down := c.downs[id]
		delete(c.downs, id)
		c.mu.Unlock()
		if down == nil {
			return nil
		}
		return down()
	}
}

// all takes everything down and keeps the lock: nothing more is brought up.
func (c *Cleanup) all() error {
	c.mu.Lock()
	var errs []error
	for _, down := range c.downs {
		errs = append(errs, down())
	}
	return errors.Join(errs...)
}

// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// journal records what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

func (j *journal) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// waiter runs until it is told to go, then takes its time.
func (j *journal) waiter(name string, takes time.Duration) Part {
	return Part{Name: name, Run: func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(takes)
		j.note(name)
		return ctx.Err()
	}}
}

func TestPartsLeaveInReverseOrderEachWithItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- Run(ctx, j.waiter("store", 0), j.waiter("server", 3*time.Second), j.waiter("front", 5*time.Second))
		}()
		synctest.Wait()
		begin := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("unexpected error: %v", err)
		}
		if want := []string{"front", "server", "store"}; !slices.Equal(j.read(), want) {
			t.Errorf("left in order %v, want %v", j.read(), want)
		}
		if took := time.Since(begin); took != 8*time.Second {
			t.Errorf("took %s, want one after the other: 8s", took)
		}
	})
}

func TestFirstPartToEndBringsDownTheRest(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		run  func(context.Context) error
		want error
	}{
		"by an error":       {func(context.Context) error { return boom }, boom},
		"by just returning": {func(context.Context) error { return nil }, ErrStopped},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &journal{}
			err := Run(t.Context(), j.waiter("a", 0), Part{Name: "culprit", Run: tc.run}, j.waiter("b", 0))
			if !errors.Is(err, tc.want) || strings.Count(err.Error(), "culprit") != 1 {
				t.Errorf("got %v, want %v, named once", err, tc.want)
			}
			if want := []string{"b", "a"}; !slices.Equal(j.read(), want) {
				t.Errorf("left %v, want %v", j.read(), want)
			}
		})
	}
}

func TestPanicIsAnErrorAndOthersStillLeave(t *testing.T) {
	t.Parallel()
	j := &journal{}
	err := Run(t.Context(), j.waiter("a", 0), Part{Name: "wild", Run: func(context.Context) error { panic("oh") }})
	if err == nil || !strings.Contains(err.Error(), "wild: panic: oh") {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(j.read(), []string{"a"}) {
		t.Errorf("left %v", j.read())
	}
}

func TestPartThatDoesNotLeaveIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		slow := j.waiter("slow", time.Minute)
		slow.Grace = time.Second
		err := Run(ctx, j.waiter("a", 0), slow)
		var late *LateError
		if !errors.As(err, &late) || late.Part != "slow" || late.Grace != time.Second {
			t.Errorf("got %v, want slow to be late", err)
		}
		if !slices.Equal(j.read(), []string{"a"}) {
			t.Errorf("left %v; the others go all the same", j.read())
		}
		time.Sleep(time.Minute) // let the abandoned one finish
	})
}

func TestErrorsOnTheWayOutAreReported(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	boom := errors.New("flush failed")
	err := Run(ctx, Part{Name: "log", Run: func(ctx context.Context) error {
		<-ctx.Done()
		return boom
	}})
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want %v", err, boom)
	}
}

func TestNoPartsReturnAtOnce(t *testing.T) {
	t.Parallel()
	if err := Run(t.Context()); err != nil {
		t.Error(err)
	}
}

package registry

import (
	"testing"
	"time"
)

// SetClock lets tests say what time it is.
func (s *Store) SetClock(clock func() time.Time) { s.clock = clock }

// EachStore is eachStore for tests that import what imports this package.
func EachStore(t *testing.T, f func(*testing.T, *Store)) { eachStore(t, f) }

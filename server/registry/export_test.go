package registry

import "time"

// SetClock lets tests say what time it is.
func (s *Store) SetClock(clock func() time.Time) { s.clock = clock }

package swarm

import (
	"context"
	"encoding/json"
	"fmt"
)

// ratesSetting is where the registry keeps the rates that somebody has set.
const ratesSetting = "rates"

// Rates are limits in bytes a second; 0 is none.
type Rates struct {
	Global     int64 `json:"global"`      // what leaves this server in all
	PerSubnet  int64 `json:"per_subnet"`  // what enters a rack or a subnet from outside
	PerMachine int64 `json:"per_machine"` // what one machine reads
}

// CheckRate finds what would stop every installation, and what no network has.
func CheckRate(n int64) error {
	if n != 0 && (n < leastRate || n > mostRate) {
		return fmt.Errorf("it is %d bytes a second; a rate is 1 kB to 10 TB a second, or 0 for no limit", n)
	}
	return nil
}

// Limits of a limit, in bytes a second: below the least, also as one of many shares, nothing would come at all.
const (
	leastRate = 1000
	mostRate  = 1e13
)

// Rates are those that hold now; own is false if they are the configuration's.
func (s *Server) Rates() (r Rates, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rates, s.own
}

// SetRates changes the rates of all servers of the registry, and keeps them over restarts.
func (s *Server) SetRates(ctx context.Context, r Rates) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = s.o.Registry.SetSetting(ctx, ratesSetting, data)
	}
	if err != nil {
		return fmt.Errorf("set rates: %w", err)
	}
	s.useRates(r, true)
	return nil
}

// ResetRates goes back to the configuration's.
func (s *Server) ResetRates(ctx context.Context) error {
	if err := s.o.Registry.DeleteSetting(ctx, ratesSetting); err != nil {
		return fmt.Errorf("reset rates: %w", err)
	}
	s.useRates(s.o.Rates, false)
	return nil
}

func (s *Server) useRates(r Rates, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rates, s.own = r, own
}

// readRates learns what another server, or this one before its restart, was told.
func (s *Server) readRates(ctx context.Context) error {
	data, ok, err := s.o.Registry.Setting(ctx, ratesSetting)
	if err != nil {
		return fmt.Errorf("read rates: %w", err)
	}
	r := s.o.Rates
	if ok {
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("read rates, the registry's setting %s: %w", ratesSetting, err)
		}
	}
	s.useRates(r, ok)
	return nil
}

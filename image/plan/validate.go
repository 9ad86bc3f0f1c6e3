package plan

import (
	"errors"
	"fmt"
)

// Validate checks that a plan does not contradict itself.
func (p Plan) Validate() error {
	switch p.Action {
	case Install, Preview:
		if p.Manifest == "" || p.Order == "" || p.Token == "" {
			return errors.New("read plan: an installation, or its preview, needs a manifest, an order and a token")
		}
		if p.Transport != "" && !p.Transport.Valid() {
			return fmt.Errorf("read plan: its transport %q is not known to this installer", p.Transport)
		}
	case Live:
		if p.Manifest == "" || p.Token == "" {
			return errors.New("read plan: a live system needs a manifest and a token")
		}
		if p.Transport != "" && !p.Transport.Valid() {
			return fmt.Errorf("read plan: its transport %q is not known to this installer", p.Transport)
		}
		if p.Live != nil {
			if err := p.Live.Validate(); err != nil {
				return fmt.Errorf("read plan: %w", err)
			}
		}
	case Wait:
		if p.RetrySeconds <= 0 {
			return errors.New("read plan: waiting needs a time to ask again")
		}
	case Inspect, LocalBoot:
	default:
		return fmt.Errorf("read plan: its action %q is not known to this installer", p.Action)
	}
	if p.Host.Network != nil {
		return p.Host.Network.Validate()
	}
	return nil
}

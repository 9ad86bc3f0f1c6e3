package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/u-root/u-root/pkg/ipmi"

	"imgbuild/image/plan"
)

// LAN configuration parameters (IPMI 2.0, table 23-4).
const (
	lanAddress = 3
	lanMAC     = 5
	lanNetmask = 6
	lanGateway = 12
)

// lan reads one LAN configuration parameter of a channel: the data behind completion code and revision.
type lan func(channel, parameter byte) ([]byte, error)

// BMC asks the management controller for its address, through the kernel's driver. It returns nil without an error where the
// device does not exist. A controller that does not answer before ctx ends is left alone.
func BMC(ctx context.Context, device string) (*plan.BMC, error) {
	if _, err := os.Stat(device); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	conn, err := ipmi.OpenPath(device)
	if err != nil {
		return nil, fmt.Errorf("ask the management controller: %w", err)
	}
	type answer struct {
		bmc *plan.BMC
		err error
	}
	answers := make(chan answer, 1)
	go func() { // ends when the controller has answered, or the driver gives it up; nobody needs it then
		defer conn.Close()
		b, err := askLAN(func(channel, parameter byte) ([]byte, error) {
			data, err := conn.GetLanConfig(channel, parameter)
			if err == nil && len(data) < 2 {
				err = errors.New("its answer is too short")
			}
			if err != nil {
				return nil, err
			}
			return data[2:], nil
		})
		answers <- answer{b, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, fmt.Errorf("ask the management controller: %w", a.err)
		}
		return a.bmc, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("ask the management controller: it does not answer: %w", context.Cause(ctx))
	}
}

// askLAN looks for the channel with a network port: 1 with nearly all, 8 or another with some.
func askLAN(get lan) (*plan.BMC, error) {
	var last error
	for _, channel := range []byte{1, 8, 2, 3, 4, 5, 6, 7} {
		ip, err := get(channel, lanAddress)
		if err != nil {
			last = err
			continue
		}
		b := &plan.BMC{Address: address(ip)}
		// An address is worth telling without the rest.
		if v, err := get(channel, lanNetmask); err == nil {
			b.Netmask = address(v)
		}
		if v, err := get(channel, lanGateway); err == nil {
			b.Gateway = address(v)
		}
		if v, err := get(channel, lanMAC); err == nil && len(v) == 6 {
			b.MAC = net.HardwareAddr(v).String()
		}
		return b, nil
	}
	return nil, fmt.Errorf("no channel of it is a network port: %w", last)
}

// address is empty for 0.0.0.0, which an unset parameter has.
func address(b []byte) string {
	a, ok := netip.AddrFromSlice(b)
	if !ok || a.IsUnspecified() {
		return ""
	}
	return a.String()
}

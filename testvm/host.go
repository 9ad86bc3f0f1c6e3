package testvm

import (
	"context"
	"errors"
	"os"
)

// Host is what the machines of this process run on: the tools found and the accelerator that works.
type Host struct {
	Tools Tools
	Accel Accel
	// AccelReason says, for people, why Accel was chosen.
	AccelReason string
}

// ErrRoot is returned when the caller may not make network namespaces and interfaces.
var ErrRoot = errors.New("prepare test machines: making a network for them needs root; run this as root")

// NewHost finds the tools of need, which always includes QEMU, and tries whether KVM really runs a guest.
func NewHost(ctx context.Context, need Need) (*Host, error) {
	if os.Geteuid() != 0 {
		return nil, ErrRoot
	}
	t, err := FindTools(HostFinder(), need|NeedQEMU)
	if err != nil {
		return nil, err
	}
	accel, why := ProbeAccel(ctx, t.QEMU)
	return &Host{Tools: t, Accel: accel, AccelReason: why}, nil
}

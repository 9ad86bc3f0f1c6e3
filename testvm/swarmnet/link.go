package swarmnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is what the cable of one machine can do, in each direction by itself.
type Link struct {
	// Rate is in bytes of TCP's payload a second; 0 is as fast as the kernel goes.
	Rate int64
	// Loss is the share of packets that is lost, from 0 to 1.
	Loss float64
}

// A packet of 1514 bytes takes 1448 of payload: Ethernet's header is 14 bytes, IPv4's 20, TCP's 32 with time stamps.
const packet, payload = 1514, 1448

// wire is how many bytes a second on the wire bring so many bytes of payload.
func wire(rate int64) int64 { return rate * packet / payload }

// ErrShape is wrapped by errors of a kernel that cannot make links slow or lossy.
var ErrShape = errors.New("this kernel cannot do it")

// shape lets an interface send at most rate bytes of payload a second. It runs in the interface's namespace, and can be called
// again.
func shape(name string, rate int64) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if rate <= 0 {
		return nil
	}
	bytes := uint64(wire(rate))
	// A burst has room for the largest packet that the kernel hands over in one piece, and for what a timer may be late; the
	// queue is a switch's.
	burst := uint32(max(128<<10, bytes/100))
	q := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       bytes, Limit: burst + 512<<10, Buffer: netlink.Xmittime(bytes, burst),
	}
	if err := netlink.QdiscReplace(q); err != nil {
		return fmt.Errorf("make %s slow with sch_tbf: %w: %w", name, ErrShape, err)
	}
	return nil
}

// lose loses a share of the packets that arrive at an interface. It runs in the interface's namespace.
func lose(name string, share float64) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if share <= 0 {
		return nil
	}
	index := l.Attrs().Index
	fd, err := loadLoss(share)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // the filter keeps the program
	hook := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscReplace(hook); err != nil {
		return fmt.Errorf("make %s lossy with sch_ingress: %w: %w", name, ErrShape, err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          fd, Name: "loss", DirectAction: true,
	}
	if err := netlink.FilterReplace(filter); err != nil {
		return fmt.Errorf("make %s lossy with cls_bpf: %w: %w", name, ErrShape, err)
	}
	return nil
}

// single makes the kernel hand over one packet at a time to an interface: otherwise what is lost at once is a bundle of up to
// 64 KiB, which no cable loses. It runs in the interface's namespace.
func single(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetGSOMaxSegs(l, 1); err != nil {
		return fmt.Errorf("have %s send packet by packet: %w: %w", name, ErrShape, err)
	}
	return nil
}

// loadLoss loads the program that loses packets, for a kernel may be without sch_netem: BPF's instructions are in
// linux/bpf.h, what the program returns in linux/pkt_cls.h.
func loadLoss(share float64) (fd int, err error) {
	const (
		call, exit       = 0x85, 0x95
		lessThan32, move = 0xa6, 0xb7 // BPF_JMP32|BPF_JLT|BPF_K, BPF_ALU64|BPF_MOV|BPF_K
		random           = 7          // BPF_FUNC_get_prandom_u32
		pass, drop       = 0, 2       // TC_ACT_OK, TC_ACT_SHOT
		progLoad         = 5          // BPF_PROG_LOAD
		classifier       = 3          // BPF_PROG_TYPE_SCHED_CLS
	)
	var code []byte
	insn := func(op byte, off int16, imm uint32) {
		code = append(code, op, 0)
		code = binary.NativeEndian.AppendUint16(code, uint16(off))
		code = binary.NativeEndian.AppendUint32(code, imm)
	}
	insn(call, 0, random)
	insn(lessThan32, 2, uint32(min(share, 1)*(1<<32-1)))
	insn(move, 0, pass)
	insn(exit, 0, 0)
	insn(move, 0, drop)
	insn(exit, 0, 0)
	var pins runtime.Pinner
	defer pins.Unpin()
	license := new(byte) // the empty string
	pins.Pin(&code[0])
	pins.Pin(license)
	// The first fields of union bpf_attr for BPF_PROG_LOAD.
	attr := &struct {
		kind, count       uint32
		code, license     unsafe.Pointer
		logLevel, logSize uint32
		log               uint64
		version, flags    uint32
	}{kind: classifier, count: uint32(len(code) / 8), code: unsafe.Pointer(&code[0]), license: unsafe.Pointer(license)}
	r, _, errno := unix.Syscall(unix.SYS_BPF, progLoad, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		return 0, fmt.Errorf("load the program that loses packets: %w: %w", ErrShape, os.NewSyscallError("bpf", errno))
	}
	return int(r), nil
}

// sent is how many bytes of payload an interface has sent through its shaper, as far as they fill packets. It runs in the
// interface's namespace.
func sent(name string) (int64, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	list, err := netlink.QdiscList(l)
	if err != nil {
		return 0, fmt.Errorf("read how much %s has sent: %w", name, err)
	}
	for _, q := range list {
		if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT && a.Statistics != nil && a.Statistics.Basic != nil {
			return int64(a.Statistics.Basic.Bytes) * payload / packet, nil
		}
	}
	return 0, fmt.Errorf("read how much %s has sent: it has no shaper", name)
}

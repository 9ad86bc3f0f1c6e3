// Package testvm runs real machines in QEMU: firmware, disks, network cards, a serial number, a serial console and, on
// a bridge in a network namespace of their own, the DHCP, TFTP and HTTP servers that they boot from.
//
// In come a machine's description and the directory of a release; out come what the machine wrote on its console, how
// it ended, and the facts that it gave when asked. Scenarios (install, power off, boot the disk alone, ask) and the
// demo are built on these.
//
// It never touches the host's own network, leaves no namespace, interface or process behind, is never part of a
// release, and imitates nothing: what cannot run for real is an error that says what to install.
package testvm

// Package vm runs the product on a virtual device: a machine of QEMU with a
// real boot loader, a real kernel, real systemd and udev, and sticks that are
// plugged in and pulled out. It is for tests; make test-vm runs them.
//
// build-image makes the device's parts from Debian's packages. A [Machine] is
// one device that is switched on. Nothing here needs KVM: under emulation the
// device reaches its shell in seconds, because it has few units and a small
// initrd.
//
// What the model cannot show: flash that wears or forgets, a drive that lies
// about flushes, a supply voltage that sags. A power cut is the death of QEMU,
// with what the guest has flushed on the host's file, and with the rest lost or
// not.
package vm

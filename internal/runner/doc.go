// Package runner runs one program of the device's owner, a state script or a
// health check, a tool for the boot loader, so that it can neither hang the update nor outlive it unseen.
//
// The program gets /dev/null or a few given bytes as its input, its own process group, no file of
// ours and nothing on its output but two pipes, of which the last bytes are
// kept. A program that takes too long is asked to end, then killed, and with
// it the whole group. When the calling process dies, the kernel kills the
// program (not what the program has started: a control group must do that).
//
// [Run] ends with the program. What the program leaves behind in the
// background is neither waited for nor killed, but its output pipes are
// closed: a script that starts a daemon has to redirect the daemon's output.
package runner

// Package mount opens a USB stick so that its artifacts can be read and nothing
// else can happen.
//
// The stick is hostile. So the package promises:
//
//   - The file system type is probed by our own code, must be in an allow-list,
//     and is named to the kernel: the kernel never guesses.
//   - The mount is read-only, without set-user-id, device nodes, programs or
//     symbolic links. Journals are not replayed, so not even the kernel writes.
//   - Nobody else sees the mount. It is in no directory tree and it ends with
//     the process, whatever kills it.
//   - A device is known by its number (major:minor). Labels and UUIDs, which
//     anyone can copy, decide nothing. A disk that the caller protects is refused.
//   - Only regular files are opened, and only those that [Stick.Candidates] would
//     find: *.mender in the root directory and in /mender.
//
// # Why a detached mount
//
// fsmount(2) gives a file descriptor of a mount that is attached nowhere. An
// [os.Root] on it reads the stick, and the kernel unmounts when the descriptors
// are closed. That needs no directory, no clean-up and no mount namespace. A
// namespace belongs to one thread, and a Go program does not choose its threads.
//
// Kernels before 5.2 lack fsmount. There a thread of its own makes a private
// namespace, mounts, opens the root directory and detaches the mount at once. The
// thread ends, and what remains is the same: a mount that only an open
// descriptor holds.
//
// Sources: fsopen(2), fsconfig(2), fsmount(2), mount_namespaces(7) of the Linux
// man-pages; ext4(5); Documentation/filesystems/{vfat,ext4}.rst of Linux. The
// on-disk formats are named where they are probed.
package mount

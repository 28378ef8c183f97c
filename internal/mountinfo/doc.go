// Package mountinfo reads the kernel's list of mounts.
//
// One line is one mount:
//
//	27 1 179:2 / /mnt rw,relatime shared:1 master:2 - ext4 /dev/root rw
//	│  │ │     │ │    │           │                 │ │    │         └ options of the file system
//	│  │ │     │ │    │           └ any number of tags, ended by a dash
//	│  │ │     │ │    └ options of the mount
//	│  │ │     │ └ mount point, and then file system type and source
//	│  │ │     └ which part of the file system
//	│  │ └ device number of the file system
//	└──┴ identifiers
//
// A line that cannot be read is an error and not left out, for it might be the
// one that is looked for.
//
// (source: proc_pid_mountinfo(5))
package mountinfo

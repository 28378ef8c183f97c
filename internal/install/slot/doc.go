// Package slot finds, writes and verifies the partitions that hold root file
// systems.
//
// It promises three things. A slot is identified by its device number, never
// by the spelling of its path, so two names of one partition are seen to be
// one. A [Writer] changes only the bytes of the image: it reads before it
// writes, leaves blocks that are right alone, and never goes past the end.
// [Writer.Verify] reads from the medium, not from the page cache.
//
// Nothing here decides which slot to write or when to boot it.
package slot

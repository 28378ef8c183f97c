// Package medium is a disk that forgets: what was written and not flushed is
// lost when the power fails, or not, or in part. It is for tests.
//
// An [Image] is what is on the disk. A [Server] serves one to a virtual machine
// as a network block device and keeps a [Trace] of all that changes it. From the
// trace follows each state that a power cut could have left behind, at any
// moment of the recorded time ([Trace.Walk]), with any part of what was not
// flushed ([Lose]). So one recorded run gives as many power cuts as it has
// requests, and each of them can be made again from an index, a [Loss] and a
// seed.
//
// The model: a sector of 512 bytes is old or new, never a mixture, and a larger
// unit where the test says so; requests
// between two flushes reach the medium in any order and in any part; a flush that
// was answered is kept. A request that was answered when the flush came in counts
// as flushed by it. What it does not show: media that lie about flushes, that
// damage what is not written, or that tear a sector.
package medium

package main

import (
	"bytes"
	"hash/maphash"

	"github.com/usb-updater/usb-updater/test/medium"
)

// watch follows, block by block, how far each slot holds each release, and a sum
// over the data partition, so that the next moment costs only what differs.
type watch struct {
	c        *checker
	releases []release
	own      [2]blockSet
	wrong    [2][][]bool // by slot, release and block: it is not what the release has
	count    [2][]int    // how many are wrong
	data     map[int64]uint64
	sum      uint64 // of data
}

// release is the root file system of a release.
type release struct {
	name  string
	image []byte
}

// seed makes sums comparable within one run of the program.
var seed = maphash.MakeSeed()

func (c *checker) newWatch(m *medium.Image, releases []release, own [2]blockSet) (*watch, error) {
	w := &watch{c: c, releases: releases, own: own, data: map[int64]uint64{}}
	for s, at := range c.lay.slots {
		w.wrong[s] = make([][]bool, len(releases))
		w.count[s] = make([]int, len(releases))
		for r := range releases {
			w.wrong[s][r] = make([]bool, at.size/medium.BlockSize)
		}
		if err := w.rescan(m, s); err != nil {
			return nil, err
		}
	}
	for n := c.lay.data.off / medium.BlockSize; n < (c.lay.data.off+c.lay.data.size)/medium.BlockSize; n++ {
		if err := w.block(m, n); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// rescan looks at all blocks of a slot.
func (w *watch) rescan(m *medium.Image, s int) error {
	at := w.c.lay.slots[s]
	for n := at.off / medium.BlockSize; n < (at.off+at.size)/medium.BlockSize; n++ {
		if err := w.block(m, n); err != nil {
			return err
		}
	}
	return nil
}

// differs tells whether a block of a slot is not what the release has. What a
// slot's own system wrote counts as right.
func (w *watch) differs(s, r int, n int64, content []byte) bool {
	if w.own[s][n] {
		return false
	}
	off := n*medium.BlockSize - w.c.lay.slots[s].off
	image := w.releases[r].image
	want := image[min(off, int64(len(image))):min(off+medium.BlockSize, int64(len(image)))]
	return !bytes.Equal(content[:len(want)], want) // what is behind the image is nobody's
}

func dataSum(n int64, content []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, n)
	_, _ = h.Write(content) // a hash takes everything
	return h.Sum64()
}

// block takes note of a block's content.
func (w *watch) block(m *medium.Image, n int64) error {
	content, err := m.Block(n)
	if err != nil {
		return err
	}
	off := n * medium.BlockSize
	if s := w.c.lay.slotOf(off); s >= 0 {
		k := (off - w.c.lay.slots[s].off) / medium.BlockSize
		for r := range w.releases {
			now := w.differs(s, r, n, content)
			w.count[s][r] += toInt(now) - toInt(w.wrong[s][r][k])
			w.wrong[s][r][k] = now
		}
	}
	if w.c.lay.data.has(off) {
		h := dataSum(n, content)
		w.sum ^= w.data[n] ^ h
		w.data[n] = h
	}
	return nil
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// content is what an image holds, as far as it matters.
type content struct {
	whole [2]string // name of the release that is whole in the slot, "" if none
	data  uint64
}

// of returns the content of an image that is over the one that is watched.
func (w *watch) of(m *medium.Image) (content, error) {
	count := [2][]int{bytesClone(w.count[0]), bytesClone(w.count[1])}
	c := content{data: w.sum}
	var err error
	m.Changed(func(n int64) {
		b, blockErr := m.Block(n)
		if blockErr != nil {
			err = blockErr
			return
		}
		off := n * medium.BlockSize
		if s := w.c.lay.slotOf(off); s >= 0 {
			k := (off - w.c.lay.slots[s].off) / medium.BlockSize
			for r := range w.releases {
				count[s][r] += toInt(w.differs(s, r, n, b)) - toInt(w.wrong[s][r][k])
			}
		}
		if w.c.lay.data.has(off) {
			c.data ^= w.data[n] ^ dataSum(n, b)
		}
	})
	for s := range count {
		for r, wrong := range count[s] {
			if wrong == 0 {
				c.whole[s] = w.releases[r].name
			}
		}
	}
	return c, err
}

func bytesClone(in []int) []int { return append([]int(nil), in...) }

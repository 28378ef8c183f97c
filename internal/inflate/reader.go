package inflate

import (
	"hash/crc32"
	"io"
	"math/bits"
)

// Fast reports whether this package is the fastest choice on the platform. Its
// bit buffer has 64 bits, which 32-bit processors pay for.
const Fast = bits.UintSize == 64

const (
	// InputSize is how much a [Reader] reads ahead, at most, in bytes.
	InputSize = 64 << 10

	// maxReadInput ends a Read that has output once it has taken this much
	// input, so that its caller sees the proportion of the two.
	maxReadInput = 4 * InputSize

	windowSize = 32 << 10 // how far back a match may reach
	bufferSize = 160 << 10
	slackSize  = 64 // holds the rest of the input while more is read

	// minInput is what the decoder of a symbol wants to see. A symbol and the
	// bits before it in the buffer take 7+48 bits.
	minInput = 32

	maxEmptyReads = 100
)

// state is what comes next in the input.
type state int

const (
	stateMember state = iota // the header of a member, or the end
	stateBlock               // the header of a block
	stateStored              // bytes of a stored block
	stateCoded               // symbols of a coded block
	stateMatch               // the rest of a match, then stateCoded
	stateTrailer
)

// buffer is what a piece of the content is decoded in: the window, and room for
// what follows. It has a fixed size so that the compiler can see that indexes
// are in bounds.
type buffer [bufferSize]byte

// Reader is the content of a gzip stream. It has a fixed size, about 300 KiB,
// and allocates nothing once it is made. It is for one goroutine.
type Reader struct {
	r       io.Reader
	readErr error // of r; what is in the buffer still counts
	err     error // what Read returns from now on

	// The input that was read is in[ip:end]. The bits of bitBuf, bitCount of
	// them from the lowest up, come before. Between calls bitCount is below 8.
	bitBuf   uint64
	bitCount uint
	ip, end  int
	total    int64 // bytes read, that is, the offset of in[end]
	budget   int   // bytes that this Read may still take

	state    state
	members  bool // one has ended
	final    bool // the block is the last one of the member
	length   int  // stateStored, stateMatch: bytes to come
	distance int  // stateMatch
	crc      uint32
	scratch  [1]byte
	size     int64 // content of the member so far, in bytes

	// out[done:pos] waits to be handed out.
	done, pos int

	lits  *litTable
	dists *distTable
	fixed bool // the tables of the fixed codes are made

	code       code
	lengths    [fixedLits + fixedDists]uint8
	litEntry   [fixedLits]uint32
	distEntry  [fixedDists]uint32
	lenEntry   [numLens]uint32
	lens       [lenSize]uint32
	ownLits    litTable
	ownDists   distTable
	fixedLits  litTable
	fixedDists distTable

	in  [slackSize + InputSize]byte
	out buffer
}

// NewReader returns a Reader of r. It reads nothing yet.
func NewReader(r io.Reader) *Reader {
	z := new(Reader)
	symbolEntries(&z.litEntry, &z.distEntry)
	for i := range z.lenEntry {
		z.lenEntry[i] = uint32(i) << valueShift
	}
	z.Reset(r)
	return z
}

// Reset makes z what NewReader(r) returns.
func (z *Reader) Reset(r io.Reader) {
	z.r, z.readErr, z.err = r, nil, nil
	z.bitBuf, z.bitCount = 0, 0
	z.ip, z.end, z.total = slackSize, slackSize, 0
	z.state, z.members = stateMember, false
	z.crc, z.size = 0, 0
	z.done, z.pos = 0, 0
}

// Read decodes into p. Large buffers, of 160 KiB and more, are decoded into
// directly; Read may use all of p as scratch space. It never returns bytes
// together with an error.
//
// io.EOF means that the reader below has ended behind a member, and that the
// checksums of all were right. io.ErrUnexpectedEOF means that it ended anywhere
// else. Any other error is an [Error], or that of the reader below. An error
// comes again at each call.
//
// Read never takes more than [InputSize] bytes at once from the reader below,
// and at most four times as much before it returns what it has decoded.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if z.done == z.pos && z.err == nil && len(p) < bufferSize {
		z.begin()
		z.slide()
		z.pos, z.err = z.decode(&z.out, z.pos, len(z.out), z.pos)
	}
	if len(p) >= bufferSize && z.err == nil {
		return z.readDirect(p)
	}
	if z.done == z.pos {
		return 0, z.err
	}
	n := copy(p, z.out[z.done:z.pos])
	z.done += n
	return n, nil
}

// begin starts a Read.
func (z *Reader) begin() { z.budget = maxReadInput }

// readDirect is Read for a large p. A match cannot reach from p into out, so the
// first windowSize bytes are decoded in out and copied.
func (z *Reader) readDirect(p []byte) (int, error) {
	z.begin()
	n := 0
	for n < windowSize && (n == 0 || z.budget > 0) {
		if z.done == z.pos {
			if z.err != nil {
				break
			}
			z.slide()
			end := min(len(z.out), z.pos+windowSize-n)
			z.pos, z.err = z.decode(&z.out, z.pos, end, z.pos)
		}
		m := copy(p[n:], z.out[z.done:z.pos])
		z.done += m
		n += m
	}
	if n == 0 {
		return 0, z.err
	}
	if n < windowSize || n == len(p) || z.err != nil || z.done < z.pos || z.budget <= 0 {
		return n, nil
	}
	for n < len(p) && z.err == nil && z.budget > 0 {
		at := min(n-windowSize, len(p)-bufferSize)
		n, z.err = z.decode((*buffer)(p[at:]), n-at, bufferSize, 0)
		n += at
	}
	z.done = copy(z.out[:], p[n-windowSize:n])
	z.pos = z.done
	return n, nil
}

// slide makes room in out, all of which has been handed out, and keeps the
// window.
func (z *Reader) slide() {
	if z.pos > windowSize {
		z.pos = copy(z.out[:], z.out[z.pos-windowSize:z.pos])
		z.done = z.pos
	}
}

// decode fills buf[pos:end] and returns where it stopped: at end, at an error, or
// when the input that a Read may take has been used and it is behind least. What
// is before pos in buf has been decoded before. It may write behind the place
// where it stops.
func (z *Reader) decode(buf *buffer, pos, end, least int) (int, error) {
	from := pos // what is behind has no part in the checksum yet
	for pos < end {
		if z.end-z.ip < minInput && z.readErr == nil {
			if z.budget <= 0 && pos > least {
				break
			}
			z.more()
		}
		var err error
		switch z.state {
		case stateMember:
			err = z.readHeader()
		case stateBlock:
			err = z.readBlock()
		case stateStored:
			pos, err = z.copyStored(buf[pos:end], pos)
		case stateMatch:
			pos = z.copyMatch(buf, pos, end)
		case stateCoded:
			pos, err = z.decodeCoded(buf, pos, end, pos-z.history(pos-from))
		case stateTrailer:
			z.sum(buf[from:pos])
			from = pos
			err = z.readTrailer()
		}
		if err != nil {
			z.sum(buf[from:pos])
			return pos, err
		}
	}
	z.sum(buf[from:pos])
	return pos, nil
}

// history returns how far back a match may reach when fresh bytes of the member
// have not been summed yet.
func (z *Reader) history(fresh int) int {
	return int(min(z.size+int64(fresh), windowSize))
}

// sum adds content to the member's checksum.
func (z *Reader) sum(content []byte) {
	z.crc = crc32.Update(z.crc, crc32.IEEETable, content)
	z.size += int64(len(content))
}

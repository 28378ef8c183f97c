package bootenv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// UBootConfig says where a U-Boot environment is.
type UBootConfig struct {
	// Copies are one or two, of the same size; see [ParseFwEnvConfig].
	Copies []Copy
	// AllowSingleCopy lets Update overwrite an only copy in place, where a
	// power cut can lose it. An only copy in a regular file needs it on FAT
	// file systems alone; elsewhere the file is replaced in one step.
	AllowSingleCopy bool
	// Locks are the lock files to take, in this order. Nil means those of
	// U-Boot's tools and libubootenv.
	Locks []string
	// WriteList limits what may be set; nil does not.
	WriteList WriteList
	// Sysfs is where sysfs is mounted; "" means /sys.
	Sysfs string
}

// UBoot is the [Store] of a U-Boot environment in files or on block devices.
// It is safe for concurrent use: the lock files keep callers apart, too.
type UBoot struct {
	copies      []Copy
	allowSingle bool
	writeList   WriteList
	layout      layout
	lock        func(context.Context) (unlock func(), err error)
	open        func(c Copy, write bool) (medium, error)

	// images is memory for what the copies hold, by copy, of the one call that
	// has mu: an installation looks a dozen times, and copies may be large.
	mu     sync.Mutex
	images [maxCopies][]byte
}

// OpenUBoot returns the store. It checks the configuration and does not touch
// the medium; the store keeps nothing open. Raw flash (/dev/mtd*, /dev/ubi*)
// is [ErrUnsupported].
func OpenUBoot(cfg UBootConfig) (*UBoot, error) {
	if err := validate(cfg.Copies); err != nil {
		return nil, fmt.Errorf("configure boot environment: %w", err)
	}
	for _, c := range cfg.Copies {
		if isRawFlash(c.Path) {
			return nil, fmt.Errorf("configure boot environment: %s: raw flash: %w", c, ErrUnsupported)
		}
	}
	locks, sysfs := cfg.Locks, cfg.Sysfs
	if locks == nil {
		locks = defaultLocks()
	}
	if sysfs == "" {
		sysfs = "/sys"
	}
	return &UBoot{
		copies:      slices.Clone(cfg.Copies),
		allowSingle: cfg.AllowSingleCopy,
		writeList:   maps.Clone(cfg.WriteList),
		layout:      layout{redundant: len(cfg.Copies) == 2, order: binary.NativeEndian},
		lock:        func(ctx context.Context) (func(), error) { return lockAll(ctx, locks) },
		open:        func(c Copy, write bool) (medium, error) { return openFile(sysfs, c, write) },
	}, nil
}

// Get implements [Store]. Values are as stored: U-Boot's backslash escapes are
// not undone. An error that no copy is good is [ErrCorrupt], [ErrNotFound] or
// the medium's, and tells what was found in each place.
func (u *UBoot) Get(ctx context.Context, names ...string) (map[string]string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	unlock, err := u.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("read boot environment: %w", err)
	}
	defer unlock()
	now, err := u.read(false)
	if err != nil {
		return nil, err
	}
	vars := now.list.all()
	if len(names) == 0 {
		return vars, nil
	}
	picked := make(map[string]string, len(names))
	for _, name := range names {
		if v, ok := vars[name]; ok {
			picked[name] = v
		}
	}
	return picked, nil
}

// Update implements [Store]. Of two copies only the one that is not in force
// is written, and it is invalid until all of it is on the medium; so every
// error leaves the old values in force unless the last flush went wrong.
//
// It refuses with [ErrNoSpace], [ErrReadOnlyVar] or [ErrNotAtomic] before the
// first write.
func (u *UBoot) Update(ctx context.Context, pairs ...Var) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	unlock, err := u.lock(ctx)
	if err != nil {
		return fmt.Errorf("write boot environment: %w", err)
	}
	defer unlock()
	// What another program left in the page cache only, or a failed flush of
	// an earlier call, must count neither as "unchanged" nor as the copy to
	// fall back on.
	now, err := u.read(true)
	if err != nil {
		return err
	}
	list, changed, err := u.plan(now, pairs)
	if err != nil || !changed {
		return err
	}
	return u.write(now, list)
}

// Check implements [Store].
func (u *UBoot) Check(ctx context.Context, pairs ...Var) (Health, error) {
	h := Health{Active: -1}
	u.mu.Lock()
	defer u.mu.Unlock()
	unlock, err := u.lock(ctx)
	if err != nil {
		return h, fmt.Errorf("read boot environment: %w", err)
	}
	defer unlock()
	now, err := u.read(false)
	for _, c := range now.copies {
		h.Copies = append(h.Copies, CopyHealth{Place: c.at.String(), Flags: c.flags, Err: c.err})
	}
	if err != nil {
		return h, err
	}
	h.Active = now.active
	h.Atomic = u.layout.redundant || now.copies[now.active].place.replace
	h.Vars = len(now.list)
	h.Free = u.room() - now.list.size()
	h.Degraded = now.degraded(h)
	if len(pairs) > 0 {
		_, _, err = u.plan(now, pairs)
	}
	return h, err
}

// plan returns the list after an update, or why the update is refused.
func (u *UBoot) plan(now snapshot, pairs []Var) (stringList, bool, error) {
	list, changed, err := now.list.with(pairs)
	for _, p := range pairs {
		if err == nil && now.list.lookup(p.Name) != p.Value {
			err = u.writeList.permits(p)
		}
	}
	if err == nil && list.size() > u.room() {
		err = fmt.Errorf("%w: %d bytes needed, %d available", ErrNoSpace, list.size(), u.room())
	}
	if err == nil && changed {
		err = u.writable(now)
	}
	if err != nil {
		return nil, false, fmt.Errorf("write boot environment %s: %w", u.copies[now.target()], err)
	}
	return list, changed, nil
}

// writable tells why the copy to write cannot take a new environment.
func (u *UBoot) writable(now snapshot) error {
	target := now.copies[now.target()]
	switch {
	case target.place == place{}: // it could not be opened
		return target.err
	case len(u.copies) == 1 && !target.place.replace && !u.allowSingle:
		return fmt.Errorf("only one copy: %w", ErrNotAtomic)
	default:
		return nil
	}
}

// room returns how many bytes a copy has for strings.
func (u *UBoot) room() int { return u.copies[0].Size - u.layout.header() }

// snapshot is what one look at the medium found.
type snapshot struct {
	copies []copyState
	active int
	list   stringList
}

// copyState is one copy. With err set it is no good, for U-Boot too.
type copyState struct {
	at    Copy
	place place // zero if it could not be opened
	image []byte
	flags byte
	err   error
}

// target returns the index of the copy that an update overwrites.
func (s snapshot) target() int { return len(s.copies) - 1 - s.active }

// read looks at all copies and picks the one in force, as U-Boot does: a copy
// that cannot be read is a bad copy. With sync set, what it sees is on the
// medium and not only in a cache.
func (u *UBoot) read(sync bool) (snapshot, error) {
	s := snapshot{active: -1}
	for i, c := range u.copies {
		if len(u.images[i]) != c.Size {
			u.images[i] = make([]byte, c.Size)
		}
		state, err := u.readCopy(c, sync, u.images[i])
		if err != nil {
			return s, fmt.Errorf("read boot environment %s: %w", c, err)
		}
		s.copies = append(s.copies, state)
	}
	first, last := s.copies[0], s.copies[len(s.copies)-1]
	if len(s.copies) == 2 && first.place.id != "" && first.place.id == last.place.id &&
		overlap(first.place.offset, last.place.offset, first.at.Size) {
		return s, fmt.Errorf("read boot environment: %s and %s are the same bytes: that is no second copy", first.at, last.at)
	}
	switch {
	case first.err == nil && last.err == nil && len(s.copies) == 2:
		s.active = newer(first.flags, last.flags)
	case first.err == nil:
		s.active = 0
	case last.err == nil:
		s.active = 1
	case len(s.copies) == 1:
		return s, fmt.Errorf("read boot environment %s: %w", first.at, first.err)
	default:
		return s, fmt.Errorf("read boot environment %s: %w; %s: %w", first.at, first.err, last.at, last.err)
	}
	s.list = decodeStrings(s.copies[s.active].image[u.layout.header():])
	return s, nil
}

// readCopy reads one copy into image. What is wrong with it goes into the state;
// the error is for a flush that failed, after which nothing on the medium is
// certain.
func (u *UBoot) readCopy(c Copy, sync bool, image []byte) (s copyState, err error) {
	s = copyState{at: c}
	m, err := u.open(c, false)
	if err != nil {
		s.err = err
		return s, nil
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	s.place = m.Place()
	if sync {
		if err := m.Sync(); err != nil {
			return s, fmt.Errorf("flush: %w", err)
		}
	}
	s.image = image
	n, err := m.ReadAt(s.image, 0)
	clear(s.image[n:])
	switch {
	case n == c.Size:
		s.err = u.layout.check(s.image)
	case errors.Is(err, io.EOF):
		s.err = corruptError(fmt.Sprintf("too short: 0x%x of 0x%x bytes", n, c.Size))
	default:
		s.err = err
	}
	if u.layout.redundant {
		s.flags = s.image[4]
	}
	return s, nil
}

const (
	// lowSpace is too little for the variables that an update may add.
	lowSpace = 64
	// manyVars is near the number of variables beyond which U-Boot drops some
	// (source: U-Boot, env/Kconfig, ENV_MAX_ENTRIES).
	manyVars = 500
)

// degraded says in words what is not as it should be.
func (s snapshot) degraded(h Health) []string {
	var d []string
	for _, c := range s.copies {
		if c.err != nil {
			d = append(d, fmt.Sprintf("copy at %s: %v", c.at, c.err))
		}
	}
	if len(s.copies) == 2 && len(d) == 0 {
		a, b := s.copies[0], s.copies[1]
		// Images are shipped with two equal copies. Otherwise they count up.
		if step := b.flags - a.flags; step != 1 && step != 0xff && (step != 0 || !slices.Equal(a.image, b.image)) {
			d = append(d, fmt.Sprintf("flags of the copies are %d and %d: not one write apart", a.flags, b.flags))
		}
	}
	if h.Free < lowSpace {
		d = append(d, fmt.Sprintf("%d bytes left", h.Free))
	}
	if h.Vars > manyVars {
		d = append(d, fmt.Sprintf("%d variables: U-Boot may drop some", h.Vars))
	}
	for _, str := range s.list {
		if str[0] == '=' {
			d = append(d, "a variable without a name: U-Boot reads nothing after it")
		}
	}
	return d
}

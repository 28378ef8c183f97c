package bootenv

// armable tells why the slot may be neither written nor armed in this state;
// nil if it may.
func armable(st State, s Slot) error {
	switch {
	case s == st.Booted:
		return ErrBooted
	case st.Phase == Trial:
		return ErrTrial
	case st.Phase == Inconsistent:
		return inconsistent(st)
	case st.CanaryMissing:
		return ErrCanary
	default:
		return nil
	}
}

// confirmable tells why there is no trial to confirm; nil if there is one.
func confirmable(st State) error {
	switch st.Phase {
	case Trial:
		return nil
	case Armed:
		return ErrNotBooted
	case Inconsistent:
		return inconsistent(st)
	default:
		return ErrNoTrial
	}
}

// inconsistent names both slots of a state that no trial explains.
func inconsistent(st State) error {
	return mismatch{running: st.Booted, next: st.Next}
}

// mismatch is an [ErrMismatch] between the running slot and the next one.
type mismatch struct{ running, next Slot }

func (e mismatch) Error() string {
	return "slot " + e.running.String() + " is running, but slot " + e.next.String() + " boots next and no trial is open: " + ErrMismatch.Error()
}

func (e mismatch) Is(target error) bool { return target == ErrMismatch }

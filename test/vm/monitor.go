package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// monitor is QEMU's control connection (source: QEMU, docs/interop/qmp-spec).
type monitor struct {
	conn   net.Conn
	dec    *json.Decoder
	events []message // that came before somebody asked for them
}

type message struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Device string `json:"device"`
		Status string `json:"status"`
	} `json:"data"`
}

// monitorTimeout bounds the wait for an answer. Saving a machine takes longest.
const monitorTimeout = time.Minute

func newMonitor(c net.Conn) (*monitor, error) {
	q := &monitor{conn: c, dec: json.NewDecoder(c)}
	var greeting json.RawMessage
	if err := q.dec.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("qemu monitor: %w", err)
	}
	return q, q.do("qmp_capabilities", nil)
}

func (q *monitor) do(command string, args map[string]any) error {
	_, err := q.ask(command, args)
	return err
}

func (q *monitor) ask(command string, args map[string]any) (json.RawMessage, error) {
	if err := q.conn.SetDeadline(time.Now().Add(monitorTimeout)); err != nil {
		return nil, err
	}
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return nil, fmt.Errorf("qemu monitor: %s: %w", command, err)
	}
	for {
		var m message
		if err := q.dec.Decode(&m); err != nil {
			return nil, fmt.Errorf("qemu monitor: %s: %w", command, err)
		}
		switch {
		case m.Event != "":
			q.events = append(q.events, m)
		case m.Error != nil:
			return nil, fmt.Errorf("qemu monitor: %s: %s", command, m.Error.Desc)
		default:
			return m.Return, nil
		}
	}
}

// add adds an image file, which a device can be made of.
func (q *monitor) add(id, image string, readOnly bool) error {
	return q.do("blockdev-add", map[string]any{
		"node-name": id, "driver": "raw", "read-only": readOnly,
		"file": map[string]any{"driver": "file", "filename": image, "read-only": readOnly},
	})
}

// deleted waits until a device is gone.
func (q *monitor) deleted(id string) error {
	err := q.wait(func(m message) (bool, error) { return m.Event == "DEVICE_DELETED" && m.Data.Device == id, nil })
	if err != nil {
		return fmt.Errorf("qemu monitor: wait for %s to go: %w", id, err)
	}
	return nil
}

// migrated waits until the state of the machine is kept.
func (q *monitor) migrated() error {
	err := q.wait(func(m message) (bool, error) {
		if m.Event == "MIGRATION" && m.Data.Status == "failed" {
			return false, errors.New("failed")
		}
		return m.Event == "MIGRATION" && m.Data.Status == "completed", nil
	})
	if err != nil {
		return fmt.Errorf("qemu monitor: keep the state: %w", err)
	}
	return nil
}

// resumed waits until a machine runs that goes on from a state.
func (q *monitor) resumed() error {
	var now struct {
		Running bool `json:"running"`
	}
	answer, err := q.ask("query-status", nil)
	if err == nil {
		err = json.Unmarshal(answer, &now)
	}
	if err == nil && !now.Running {
		err = q.wait(func(m message) (bool, error) { return m.Event == "RESUME", nil })
	}
	if err != nil {
		return fmt.Errorf("qemu monitor: go on from a state: %w", err)
	}
	return nil
}

// wait waits for an event.
func (q *monitor) wait(is func(message) (bool, error)) error {
	for i, m := range q.events {
		if ok, err := is(m); ok || err != nil {
			q.events = slices.Delete(q.events, i, i+1)
			return err
		}
	}
	for {
		if err := q.conn.SetDeadline(time.Now().Add(monitorTimeout)); err != nil {
			return err
		}
		var m message
		if err := q.dec.Decode(&m); err != nil {
			return err
		}
		if ok, err := is(m); ok || err != nil {
			return err
		}
		q.events = append(q.events, m)
	}
}

package vm

import (
	"encoding/json"
	"fmt"
	"net"
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

// human runs a command of the monitor for people. It answers failures with
// words.
func (q *monitor) human(command string) error {
	answer, err := q.ask("human-monitor-command", map[string]any{"command-line": command})
	if err != nil {
		return err
	}
	var words string
	if err := json.Unmarshal(answer, &words); err != nil {
		return fmt.Errorf("qemu monitor: %s: %w", command, err)
	}
	if words != "" {
		return fmt.Errorf("qemu monitor: %s: %s", command, words)
	}
	return nil
}

// deleted waits until a device is gone.
func (q *monitor) deleted(id string) error {
	for {
		for i, e := range q.events {
			if e.Event == "DEVICE_DELETED" && e.Data.Device == id {
				q.events = append(q.events[:i], q.events[i+1:]...)
				return nil
			}
		}
		if err := q.conn.SetDeadline(time.Now().Add(monitorTimeout)); err != nil {
			return err
		}
		var m message
		if err := q.dec.Decode(&m); err != nil {
			return fmt.Errorf("qemu monitor: wait for %s to go: %w", id, err)
		}
		q.events = append(q.events, m)
	}
}

package simscript

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// server serves files. The first connection ends after cut bytes, unless that
// is 0; the others serve swap for every name, unless that is "".
type server struct {
	dir, swap string
	cut       int
	redirect  bool // the first request of each name gets another address
	chunked   bool // tells no length

	mu     sync.Mutex
	served bool
}

// cmdServe starts a server that ends with the script. With tls, it is one that
// nobody trusts, and server.pem is its certificate.
func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	s := &server{dir: ts.MkAbs(".")}
	h := httptest.NewUnstartedServer(s)
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	start := h.Start
	for _, option := range args {
		switch k, v, _ := strings.Cut(option, "="); k {
		case "tls":
			start = h.StartTLS
		case "cut":
			n, err := strconv.Atoi(v)
			ts.Check(err)
			s.cut = n
		case "swap":
			s.swap = v
		case "redirect":
			s.redirect = true
		case "chunked":
			s.chunked = true
		default:
			ts.Fatalf("serve: unknown option %s", option)
		}
	}
	start()
	ts.Defer(h.Close)
	ts.Setenv("URL", h.URL)
	if cert := h.Certificate(); cert != nil {
		b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		ts.Check(os.WriteFile(ts.MkAbs("server.pem"), b, 0o600))
	}
}

// ServeHTTP serves one file.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	first := !s.served
	s.served = true
	s.mu.Unlock()
	name := filepath.Base(r.URL.Path)
	if dir := "/moved/"; s.redirect && !strings.HasPrefix(r.URL.Path, dir) {
		http.Redirect(w, r, dir+name, http.StatusFound)
		return
	}
	if s.chunked {
		s.stream(w, name)
		return
	}
	switch {
	case first && s.cut > 0:
		w = &cutWriter{w, s.cut}
	case !first && s.swap != "":
		name = s.swap
	}
	w.Header().Set("ETag", strconv.Quote(name)) // two files may have been written in one second
	http.ServeFile(w, r, filepath.Join(s.dir, name))
}

// stream serves a file piece by piece, so that its length is known at its end.
func (s *server) stream(w http.ResponseWriter, name string) {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		http.Error(w, name, http.StatusNotFound)
		return
	}
	defer f.Close()                           // read only
	_ = http.NewResponseController(w).Flush() // now there is no length any more
	_, _ = io.Copy(struct{ io.Writer }{w}, f) // a client that went away is none of the server's
}

// cutWriter ends the connection after some bytes of the body.
type cutWriter struct {
	http.ResponseWriter
	left int
}

// Write writes what is left.
func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left]) // the connection ends anyway
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

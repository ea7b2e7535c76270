package main

import (
	"bufio"
	"crypto/sha1"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// front serves what the simulator serves too kindly, lets everything else through, and drops
// connections when a knob says so.
func (s *site) front(rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.knobs.get().Drop {
			panic(http.ErrAbortHandler)
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/nfc/"):
			s.serveLease(w, r)
		case strings.HasPrefix(r.URL.Path, "/folder"):
			s.serveFolder(w, r)
		default:
			rest.ServeHTTP(w, r)
		}
	})
}

// serveLease sends a disk of a lease as a stream-optimized VMDK, or a file that is no disk. The URL
// holds the ticket, so no session is asked for; there are no ranges and no length. Sending stops where
// the lease ends.
func (s *site) serveLease(w http.ResponseWriter, r *http.Request) {
	id, name := path.Base(path.Dir(r.URL.Path)), path.Base(r.URL.Path)
	one, file := s.leases.find(id, name)
	if file == nil {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet {
		http.Error(w, "", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	wire := s.knobs.wire(w, func() bool { return !one.isOpen() })
	short, long := sha1.New(), sha256.New()
	counted := &counter{}
	// What is spoilt on the wire is not what the manifest speaks of.
	to := bufio.NewWriterSize(io.MultiWriter(short, long, counted, wire), 256*1024)
	populated := int64(len(file.plain))
	var err error
	if file.content == nil {
		_, err = to.Write(file.plain)
	} else {
		populated, err = writeStream(to, file.content, file.last)
	}
	if err == nil {
		err = to.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	file.sent = &sentFile{
		size: counted.bytes, populated: populated, sha1: short.Sum(nil), sha256: long.Sum(nil),
	}
}

type counter struct{ bytes int64 }

func (c *counter) Write(data []byte) (int, error) {
	c.bytes += int64(len(data))
	return len(data), nil
}

// serveFolder sends files of the datastore, any range of them, to whoever has a session or a ticket
// for this very URL, and names both datacenter and datastore. The simulator asks for neither.
func (s *site) serveFolder(w http.ResponseWriter, r *http.Request) {
	if !s.mayRead(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	if !s.granted("Datastore.Browse") || !s.granted("Datastore.FileManagement") {
		http.Error(w, "", http.StatusForbidden)
		return
	}
	query := r.URL.Query()
	place := strings.TrimPrefix(r.URL.Path, "/folder")
	if query.Get("dcPath") != "DC0" || query.Get("dsName") != s.inventory.Datastore || place == "" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "", http.StatusMethodNotAllowed)
		return
	}
	// Clean begins at the root: nothing above the folder can be named.
	file, err := os.Open(filepath.Join(s.folder, path.Clean("/"+place)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer file.Close()
	facts, err := file.Stat()
	if err != nil || facts.IsDir() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(s.knobs.wire(w, func() bool { return false }), r, "", facts.ModTime(), file)
}

// wire returns what a download is written to: it is slow, ends early or spoils a byte as knobs say.
func (k *knobs) wire(w http.ResponseWriter, ended func() bool) *faultyWriter {
	faults := k.take()
	return &faultyWriter{ResponseWriter: w, knobs: k, ended: ended, cut: faults.cut, corrupt: faults.corrupt}
}

// faultyWriter is one download on its way.
type faultyWriter struct {
	http.ResponseWriter
	knobs        *knobs
	ended        func() bool
	sent         int64
	cut, corrupt int64 // at which byte; -1 for never
}

// pieceBytes is what is sent at once: knobs and the lease's end are looked at in between.
const pieceBytes = 16 * 1024

func (f *faultyWriter) Write(data []byte) (int, error) {
	for done := 0; done < len(data); {
		n, err := f.writePiece(data[done:min(len(data), done+pieceBytes)])
		done += n
		if err != nil {
			return done, err
		}
	}
	return len(data), nil
}

func (f *faultyWriter) writePiece(data []byte) (int, error) {
	now := f.knobs.get()
	if now.Drop || f.ended() {
		f.abort()
	}
	if at := f.corrupt - f.sent; f.corrupt >= 0 && at >= 0 && at < int64(len(data)) {
		data = append([]byte(nil), data...)
		data[at] ^= 0x40
	}
	cut := f.cut >= 0 && f.sent+int64(len(data)) > f.cut
	if cut {
		data = data[:f.cut-f.sent]
	}
	n, err := f.ResponseWriter.Write(data)
	f.sent += int64(n)
	if cut {
		f.abort()
	}
	if now.BytesPerSecond > 0 {
		time.Sleep(time.Duration(float64(n) / now.BytesPerSecond * float64(time.Second)))
	}
	return n, err
}

// abort closes the connection as a broken one closes, after what was written has gone out.
func (f *faultyWriter) abort() {
	if flusher, ok := f.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
	panic(http.ErrAbortHandler)
}

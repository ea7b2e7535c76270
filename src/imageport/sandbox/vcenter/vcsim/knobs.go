package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// settings are what a test may turn.
type settings struct {
	LeaseTimeoutSeconds float64  `json:"lease_timeout_seconds"`
	LeaseReadySeconds   float64  `json:"lease_ready_seconds"` // from initializing to ready
	StarHost            bool     `json:"star_host"`           // URLs of leases name the host as *
	BytesPerSecond      float64  `json:"bytes_per_second"`    // of every download; 0 is no limit
	Cuts                []int64  `json:"cuts"`                // the next downloads end after so many bytes
	Corrupt             []int64  `json:"corrupt"`             // the next downloads have this byte changed
	Manifest            string   `json:"manifest"`            // "", checksum, size or missing: what is wrong in it
	Drop                bool     `json:"drop"`                // every connection is closed without an answer
	Denied              []string `json:"denied"`              // privileges that the user lacks
	AreasPerAnswer      int      `json:"areas_per_answer"`    // of QueryChangedDiskAreas
}

func (s settings) readyAfter() time.Duration {
	return time.Duration(s.LeaseReadySeconds * float64(time.Second))
}

// spoil returns the manifest's entry as the knob wants it, nil for none.
func (s settings) spoil(entry types.HttpNfcLeaseManifestEntry) *types.HttpNfcLeaseManifestEntry {
	switch s.Manifest {
	case "checksum":
		entry.Sha1 = "00" + entry.Sha1[2:]
		entry.Checksum = "00" + entry.Checksum[2:]
	case "size":
		entry.Size++
	case "missing":
		return nil
	}
	return &entry
}

type knobs struct {
	mu  sync.Mutex
	now settings
}

func defaultKnobs() *knobs {
	// Few areas an answer: every client has to loop.
	return &knobs{now: settings{
		LeaseTimeoutSeconds: 300, LeaseReadySeconds: 0.1, StarHost: true, AreasPerAnswer: 4,
	}}
}

func (k *knobs) get() settings {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// UnmarshalJSON changes those that the document names, and refuses others.
func (k *knobs) UnmarshalJSON(text []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strictly(text, &k.now)
}

type faults struct{ cut, corrupt int64 }

// take returns the faults of the next download.
func (k *knobs) take() faults {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := func(list *[]int64) int64 {
		if len(*list) == 0 {
			return -1
		}
		found := (*list)[0]
		*list = (*list)[1:]
		return found
	}
	return faults{cut: first(&k.now.Cuts), corrupt: first(&k.now.Corrupt)}
}

// serveKnobs listens on a loopback port of its own, without TLS: what tests turn and ask.
func (s *site) serveKnobs() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.control = "http://" + listener.Addr().String()
	mux := http.NewServeMux()
	for name, ask := range map[string]func(*http.Request) (any, error){
		"GET about":             s.askAbout,
		"GET knobs":             func(*http.Request) (any, error) { return s.knobs.get(), nil },
		"POST knobs":            s.turnKnobs,
		"GET leases":            s.askLeases,
		"POST expire-leases":    s.expireLeases,
		"POST expire-sessions":  s.expireSessions,
		"POST remove-snapshot":  s.removeSnapshot,
		"POST write":            s.guestWrite,
		"POST read-certificate": func(*http.Request) (any, error) { return true, s.identity.reload() },
	} {
		var method, path string
		_, _ = fmt.Sscan(name, &method, &path)
		mux.HandleFunc(method+" /imageport/"+path, func(w http.ResponseWriter, r *http.Request) {
			found, err := ask(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_ = json.NewEncoder(w).Encode(found)
		})
	}
	go func() { _ = http.Serve(listener, mux) }()
	return nil
}

func (s *site) askAbout(*http.Request) (any, error) {
	return map[string]any{"address": s.address, "thumbprint": s.identity.thumbprint()}, nil
}

func (s *site) turnKnobs(r *http.Request) (any, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, s.knobs); err != nil {
		return nil, err
	}
	return s.knobs.get(), nil
}

func (s *site) askLeases(*http.Request) (any, error) {
	found := []map[string]any{}
	for _, one := range s.leases.all() {
		if one.isOpen() {
			found = append(found, map[string]any{
				"id": one.Self.Value, "snapshot": one.snapshot.Value, "state": string(one.State),
			})
		}
	}
	return found, nil
}

func (s *site) expireLeases(*http.Request) (any, error) {
	return s.leases.failThose(s, func(*lease) bool { return true }, "the lease timed out"), nil
}

// expireSessions logs everyone out, as vCenter does after its idle time.
func (s *site) expireSessions(*http.Request) (any, error) {
	ctx := simulator.NewContext()
	ctx.Map, ctx.Session.Map = s.registry, s.registry
	manager := s.registry.SessionManager()
	// A session's view of the manager is the one that lists them.
	list := ctx.Session.Get(manager.Self).(*simulator.SessionManager).SessionList
	for _, one := range list {
		manager.TerminateSession(ctx, &types.TerminateSession{SessionId: []string{one.Key}})
		s.leases.failThose(s, func(l *lease) bool { return l.session == one.Key }, "its session ended")
	}
	return len(list), nil
}

// removeSnapshot is what an administrator does meanwhile.
func (s *site) removeSnapshot(r *http.Request) (any, error) {
	var asked struct{ Machine, Snapshot string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		return nil, err
	}
	one := s.machines[asked.Machine]
	if one == nil {
		return nil, errors.New("no such machine")
	}
	ctx := context.Background()
	client, err := vim25.NewClient(ctx, s.service)
	if err != nil {
		return nil, err
	}
	consolidate := true
	return true, await(object.NewVirtualMachine(client, one.ref).RemoveSnapshot(ctx, asked.Snapshot, false, &consolidate))
}

// guestWrite is what the guest does: the body's bytes go to a disk, by its place in the machine.
func (s *site) guestWrite(r *http.Request) (any, error) {
	query := r.URL.Query()
	one := s.machines[query.Get("machine")]
	key, err := strconv.ParseInt(query.Get("key"), 10, 32)
	if err != nil || one == nil || one.disks[int32(key)] == nil {
		return nil, errors.New("no such machine or disk")
	}
	offset, err := strconv.ParseInt(query.Get("offset"), 10, 64)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	return len(data), one.disks[int32(key)].write(data, offset)
}

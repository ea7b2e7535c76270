// A vCenter on loopback: govmomi's simulator with what it lacks (see the other files of this folder,
// one for each addition). It never serves other hosts, and it is for tests and the demo only.
//
// User and password come in VCENTER_USER and VCENTER_PASSWORD. When both ends answer, ROOT/endpoint
// holds the address of the knobs, where the vCenter's own address is asked for.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/vmware/govmomi/simulator"
)

func main() {
	log.SetFlags(log.Ltime)
	root := flag.String("root", "", "folder for what the program says about itself")
	datastore := flag.String("datastore", "", "folder that is the datastore")
	inventory := flag.String("inventory", "", "JSON file with the machines")
	certificate := flag.String("certificate", "", "PEM file with the certificate")
	key := flag.String("key", "", "PEM file with its key")
	listen := flag.String("listen", "127.0.0.1:0", "loopback address of the vCenter")
	knobs := flag.String("knobs", "{}", "JSON document with knobs to begin with")
	flag.Parse()
	site, err := start(*datastore, *inventory, *certificate, *key, *listen, *knobs)
	if err != nil {
		log.Fatal(err)
	}
	if err := site.announce(*root); err != nil {
		log.Fatal(err)
	}
	ended := make(chan os.Signal, 1)
	// The terminal's Ctrl-C is the caller's to handle.
	signal.Ignore(os.Interrupt)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
	site.model.Remove()
}

// site is one running vCenter with all that is added to it.
type site struct {
	model     *simulator.Model
	service   *simulator.Service
	registry  *simulator.Registry
	inventory inventory
	folder    string // of the datastore
	machines  map[string]*machine
	leases    *leaseTable
	tickets   *ticketTable
	knobs     *knobs
	identity  *identity
	address   string // HOST:PORT of the vCenter
	control   string // URL of the knobs
}

func start(folder, inventoryPath, certificate, key, listen, knobText string) (*site, error) {
	found, err := readInventory(inventoryPath)
	if err != nil {
		return nil, err
	}
	turned := defaultKnobs()
	if err := json.Unmarshal([]byte(knobText), turned); err != nil {
		return nil, fmt.Errorf("bad knobs: %w", err)
	}
	id, err := readIdentity(certificate, key)
	if err != nil {
		return nil, err
	}
	s := &site{
		inventory: found, folder: folder, machines: map[string]*machine{},
		leases: newLeaseTable(), tickets: newTicketTable(), knobs: turned, identity: id,
	}
	if err := s.build(); err != nil {
		return nil, err
	}
	s.service.Listen = &url.URL{
		Host: listen,
		User: url.UserPassword(os.Getenv("VCENTER_USER"), os.Getenv("VCENTER_PASSWORD")),
	}
	s.service.TLS = id.config()
	server := s.service.NewServer()
	s.address = server.URL.Host
	server.Config.Handler = s.front(s.service.ServeMux)
	return s, s.serveKnobs()
}

// announce writes the knobs' address where the caller waits for it.
func (s *site) announce(root string) error {
	part := filepath.Join(root, "endpoint.part")
	if err := os.WriteFile(part, []byte(s.control), 0o600); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(root, "endpoint"))
}

package main

import (
	"crypto/sha1"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
)

// identity is the certificate that the server shows; it can be read anew while the server runs.
type identity struct {
	certificate, key string

	mu     sync.Mutex
	loaded tls.Certificate
}

func readIdentity(certificate, key string) (*identity, error) {
	id := &identity{certificate: certificate, key: key}
	return id, id.reload()
}

func (id *identity) reload() error {
	loaded, err := tls.LoadX509KeyPair(id.certificate, id.key)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.loaded = loaded
	return nil
}

func (id *identity) current() tls.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.loaded
}

// config returns what the listener takes: every handshake shows what is loaded then.
func (id *identity) config() *tls.Config {
	ask := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{
			Certificates: []tls.Certificate{id.current()}, NextProtos: []string{"http/1.1"},
		}, nil
	}
	return &tls.Config{Certificates: []tls.Certificate{id.current()}, GetConfigForClient: ask}
}

// thumbprint returns the SHA-1 of the certificate as leases name it.
func (id *identity) thumbprint() string {
	sum := sha1.Sum(id.current().Certificate[0])
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

package main

import (
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	ticketCookie = "vmware_cgi_ticket"
	// A ticket is for one request and soon: two minutes, as the API reference has it for clone tickets.
	ticketLife = 2 * time.Minute
)

// ticketTable has the tickets that were given and not used.
type ticketTable struct {
	mu      sync.Mutex
	tickets map[string]ticket
}

type ticket struct {
	url     string
	expires time.Time
}

func newTicketTable() *ticketTable {
	return &ticketTable{tickets: map[string]ticket{}}
}

// take uses a ticket up; it must be for the path and query of this request.
func (t *ticketTable) take(id string, r *http.Request) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, known := t.tickets[id]
	delete(t.tickets, id)
	wanted := "https://" + r.Host + r.URL.RequestURI()
	return known && time.Now().Before(one.expires) && one.url == wanted
}

// AcquireGenericServiceTicket gives a ticket for one URL; the simulator's are good for nothing.
func (m *methodsAdded) AcquireGenericServiceTicket(
	ctx *simulator.Context, req *types.AcquireGenericServiceTicket,
) soap.HasFault {
	body := &methods.AcquireGenericServiceTicketBody{}
	spec, ok := req.Spec.(*types.SessionManagerHttpServiceRequestSpec)
	if !ok || (spec.Method != "" && spec.Method != "httpGet") {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "spec"})
		return body
	}
	id := uuid.NewString()
	m.site.tickets.mu.Lock()
	defer m.site.tickets.mu.Unlock()
	m.site.tickets.tickets[id] = ticket{url: spec.Url, expires: time.Now().Add(ticketLife)}
	body.Res = &types.AcquireGenericServiceTicketResponse{
		Returnval: types.SessionManagerGenericServiceTicket{
			Id: id, HostName: m.site.address, TicketType: "HttpServiceTicket",
		},
	}
	return body
}

func (s *site) mayRead(r *http.Request) bool {
	if cookie, err := r.Cookie(ticketCookie); err == nil && s.tickets.take(cookie.Value, r) {
		return true
	}
	cookie, err := r.Cookie(soap.SessionCookieName)
	return err == nil && s.isSession(cookie.Value)
}

func (s *site) isSession(key string) bool {
	user := s.service.Listen.User.Username()
	answer := s.registry.SessionManager().SessionIsActive(s.service.Context, &types.SessionIsActive{
		SessionID: key, UserName: user,
	})
	body, ok := answer.(*methods.SessionIsActiveBody)
	return ok && body.Res != nil && body.Res.Returnval
}

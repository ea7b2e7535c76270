"""A strict stand-in for a XenServer pool, driven by the vendor's own client over real TLS.

What it proves: that the product signs in, finds machines, takes and removes snapshots and receives
disks with calls that xapi knows, with as many parameters as xapi takes and with the roles that xapi
asks for; that it follows a pool member to its coordinator and an export to the host that has the
storage, and checks each one's certificate; that it believes the task and neither the HTTP status
nor the end of the stream; that it leaves no snapshot, task or attached disk behind, whatever
happens to an export. Names, roles, error codes and the order of what an export sends are those of
xapi's source (ocaml/xapi: export_raw_vdi, importexport, xapi_http, xapi_task, xapi_vdi,
attach_helpers, rbac; ocaml/idl; ocaml/libs/vhd).

What it does not prove: anything about a real storage manager (a snapshot here is a sparse copy of
a raw file), about speed, or about releases of xapi that behave differently from that source.
`docs/unverified.md` lists what is left to a real pool.
"""

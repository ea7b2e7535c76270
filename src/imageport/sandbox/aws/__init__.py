"""AWS on this machine: moto made as strict as AWS, and a hypervisor whose machines really run."""

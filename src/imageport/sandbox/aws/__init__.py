"""AWS on this machine: moto made as strict as AWS, and a hypervisor whose machines really run.

What it is: EBS direct by all rules of its documentation; EC2's rules for snapshots, volumes,
images, machines and groups as far as this product meets them; S3 and STS as moto has them. Machines
of an engine image run their user data as a process; machines whose root holds a system boot it
under real firmware, and the guest player acts as Windows would.

What it is not: no network between machines (it is declared and checked), of IAM only what this
product's own policies say (knob ``policies``; ``denied`` takes single actions away), no signatures,
no quota but that of processors, no performance. Snapshots outlive a restart; volumes, machines,
images, buckets and networks do not.
"""

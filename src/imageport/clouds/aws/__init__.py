"""Amazon Web Services as a target: EBS direct APIs for blocks, EC2 for the two short-lived VMs."""

"""XenServer and XCP-ng pools, through the vendor's client and xapi's export of single disks."""

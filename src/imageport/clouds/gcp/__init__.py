"""Google Cloud behind the interface `imageport.cloud.Cloud`."""

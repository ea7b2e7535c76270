"""Microsoft Azure behind the interface of `imageport.cloud`."""

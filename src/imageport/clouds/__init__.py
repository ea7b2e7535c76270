"""Implementations of `imageport.cloud.Cloud`, one subpackage per cloud."""

"""Prepared measurements that take a machine of their own."""

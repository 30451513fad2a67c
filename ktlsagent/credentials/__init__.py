"""Certificates, keys, trust stores and CRLs: read from files and tokens, made into contexts."""

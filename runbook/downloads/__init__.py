"""What `artifacts` is made of: where releases come from, their checksums, the cache, and building from Go modules."""

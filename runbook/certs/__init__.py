"""What `pki` is made of: the authority, certificates as values, secrets and how they are kept."""

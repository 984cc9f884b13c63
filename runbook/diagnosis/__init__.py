"""What `diagnose` is made of: one look at a node, the whole case, and the rules from there to causes."""

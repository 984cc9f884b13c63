"""What a `record` is made of: saving, secrets taken out, sums and chain, and what is done with it later."""

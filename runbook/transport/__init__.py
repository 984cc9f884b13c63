"""What `ssh` is made of: connecting, host keys, a script's channel, and the process that keeps a run's connections."""

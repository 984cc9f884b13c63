"""What `params` is made of: reading the file, the models, their rules, and what is wrong in words."""

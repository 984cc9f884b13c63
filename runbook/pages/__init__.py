"""The pages of a record, and the pictures in them and in notebooks."""

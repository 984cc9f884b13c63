"""What becomes of a `plan`: how it looks, who says yes, how it is applied, and what is seen of that meanwhile."""

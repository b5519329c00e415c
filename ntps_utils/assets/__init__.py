"""Files that figures are made of."""

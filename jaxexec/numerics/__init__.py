"""Floor 0: arrays, statuses, tridiagonal solves, roots and moments. No finance here."""

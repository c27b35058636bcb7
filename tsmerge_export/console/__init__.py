"""What people see: tables, bars, notes, one line."""

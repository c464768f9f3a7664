"""What people read: tables, names, figures."""

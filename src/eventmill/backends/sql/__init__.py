"""What the SQL databases share: named statements and migrations."""

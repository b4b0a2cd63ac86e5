"""What commands print: lines, tables and bars."""

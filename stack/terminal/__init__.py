"""What is shown to people: bars, tables, and sentences in their language."""
